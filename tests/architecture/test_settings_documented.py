"""Every setting stands in .env.example and in the reference, and neither names one that does not exist."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from app.config import ALL_SECRETS, COMPOSE_SECRETS, RABBITMQ_SECRET, Settings, load_settings
from tests.factories.compose import OF_OPENTELEMETRY, interpolated_variables

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {name.upper() for name in Settings.model_fields}
# Read past the settings: by the tools over stdio, whose surroundings belong to the agent, and by gunicorn before it is one.
READ_ELSEWHERE = {"NEXUS_API_KEY", "NEXUS_API_KEY_FILE", "NEXUS_AGENT_ID", "PROMETHEUS_MULTIPROC_DIR"}
# Told to the libraries and the system, not by an operator.
OF_THE_SYSTEM = {"PATH", "PATH_INFO", "TOKENIZERS_PARALLELISM"}


def test_example_environment_names_every_setting_and_what_compose_takes_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?\s?([A-Z][A-Z0-9_]+)=", text, flags=re.MULTILINE))
    assert named == FIELDS | interpolated_variables()
    assert named >= OF_OPENTELEMETRY


def test_sourced_with_every_line_it_says_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    # What is empty there is not set: an empty path is a path.
    loaded = _sourced("\n".join(line[1:] for line in lines if re.match(r"#[A-Z][A-Z0-9_]*=.", line)))
    for name in FIELDS:
        monkeypatch.delenv(name, raising=False)
    for name, value in loaded.items():
        monkeypatch.setenv(name, value)
    assert len(loaded) > 60
    assert load_settings() == Settings.model_construct()


def test_list_of_names_survives_a_shell_wherever_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [ROOT / ".env.example", ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = [line for path in documents for line in re.findall(r"MCP_ALLOWED_HOSTS=[^\s`]+", path.read_text(encoding="utf-8"))]
    assert len(shown) >= 4
    for line in shown:
        monkeypatch.setenv("MCP_ALLOWED_HOSTS", _sourced(line.removesuffix("."))["MCP_ALLOWED_HOSTS"])
        assert load_settings().mcp_allowed_hosts in ([], ["memory.example.org"], (), ("memory.example.org",)), line


def _sourced(text: str) -> dict[str, str]:
    """Return what a shell has in its environment after `set -a; . FILE`, beside what it begins with."""
    done = subprocess.run(
        ["bash", "-c", "set -a; . /dev/stdin; env -0"],
        input=text,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    return {name: value for name, value in found.items() if name not in {"PATH", "PWD", "SHLVL", "_", "OLDPWD"}}


def test_every_variable_that_the_code_reads_by_itself_is_known() -> None:
    pattern = re.compile(r"environ(?:\.get\(|\.setdefault\(|\[)\"([A-Z_]+)\"")
    files = [path for folder in ("app", "tasks", "migrations") for path in (ROOT / folder).rglob("*.py")]
    read = {name for path in files for name in pattern.findall(path.read_text(encoding="utf-8"))}
    assert read - FIELDS - OF_OPENTELEMETRY - OF_THE_SYSTEM == READ_ELSEWHERE


def test_reference_names_every_setting_and_no_other() -> None:
    text = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\|\s*`([A-Z][A-Z0-9_]+)`\s*\|", text, flags=re.MULTILINE))
    assert named == FIELDS | OF_OPENTELEMETRY | READ_ELSEWHERE


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")] == []


def test_every_secret_file_is_described() -> None:
    text = (ROOT / "secrets" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)\.txt` \|", text, flags=re.MULTILINE)) == {*ALL_SECRETS, *COMPOSE_SECRETS, RABBITMQ_SECRET}
