"""The documents keep their word: their commands are run against a live stack, and what they state is what comes back."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.conftest import RunningStack
from tests.factories.documents import ROOT, Example, difference, examples

README = examples("README.md")
TROUBLESHOOTING = examples("docs/troubleshooting.md")
DEPLOYMENT = examples("docs/deployment.md")
SESSION_SECONDS = 180

# The status goes to stderr, so that the commands may pipe the body.
_CURL = "curl() { command curl --max-time 60 -w '%{stderr}HTTP %{http_code}\\n' \"$@\"; }"


@dataclass(frozen=True)
class Answered:
    """What one block wrote, and how its last command ended."""

    stdout: str
    stderr: str
    exit_status: int

    @property
    def status(self) -> int | None:
        """HTTP status of the last request, None when there was none."""
        statuses = re.findall(r"^HTTP (\d{3})$", self.stderr, flags=re.MULTILINE)
        return int(statuses[-1]) if statuses else None


def run_session(stack: RunningStack, blocks: list[Example], folder: Path) -> list[Answered]:
    """Run the blocks one after the other in one shell, as a reader would, and return what each did."""
    lines = [_CURL]
    for number, block in enumerate(blocks):
        lines.append(
            f"{{\n{_here(stack, block.commands)}\n}} >{folder}/{number}.out 2>{folder}/{number}.err; echo $? >{folder}/{number}.rc"
        )
    (folder / "session.sh").write_text("\n".join(lines), encoding="utf-8")
    subprocess.run(["bash", str(folder / "session.sh")], cwd=ROOT, env=_environment(stack), check=True, timeout=SESSION_SECONDS)
    return [
        Answered(
            (folder / f"{number}.out").read_text(encoding="utf-8"),
            (folder / f"{number}.err").read_text(encoding="utf-8"),
            int((folder / f"{number}.rc").read_text(encoding="utf-8")),
        )
        for number in range(len(blocks))
    ]


def _here(stack: RunningStack, commands: str) -> str:
    """Return the commands with the places of this stack instead of the usual ones."""
    key_file = shlex.quote(str(stack.settings.secret_path("admin_api_key")))
    places = {"http://127.0.0.1:8002": stack.base_url, "secrets/admin_api_key.txt": key_file, ".venv/bin/python": sys.executable}
    for usual, here in places.items():
        commands = commands.replace(usual, here)
    return commands


def _environment(stack: RunningStack) -> dict[str, str]:
    python_first = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    settings = stack.settings
    return {
        **os.environ,
        "PATH": python_first,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "DATA_DIR": str(settings.data_dir),
        "SECRETS_DIR": str(settings.secrets_dir),
        "PORT": str(settings.port),
        "FLOWER_PORT": str(settings.flower_port),
    }


@pytest.fixture(scope="module")
def readme(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Answered]:
    """What each block of README did, by its line."""
    assert shutil.which("curl") and shutil.which("bash"), "the documents' commands need bash and curl: install them"
    answered = run_session(stack, README, tmp_path_factory.mktemp("readme"))
    return {block.line: outcome for block, outcome in zip(README, answered, strict=True)}


@pytest.mark.parametrize("block", README, ids=lambda block: block.name)
def test_block_of_readme_does_what_readme_says(block: Example, readme: dict[int, Answered]) -> None:
    outcome = readme[block.line]
    if block.status is None:
        assert outcome.exit_status == 0, outcome.stderr
        return
    assert outcome.status == block.status, outcome.stdout[:500]
    if block.code is not None:
        problem = json.loads(outcome.stdout)
        assert (problem["code"], problem["status"]) == (block.code, block.status)
    if block.answer is not None:
        assert difference(block.answer, json.loads(outcome.stdout)) is None


def test_every_route_of_the_api_stands_in_readme_with_a_request() -> None:
    shown = "\n".join(block.commands for block in README)
    routes = (
        "/memory/action",
        "/memory/actions",
        "/memory/search",
        "/memory/episodic/recent",
        "/memory/episodic/$ID",
        "/stats",
        "/metrics",
    )
    more = ("/health", "/health/live", "/health/ready", "/integrity", "/integrity/verify")
    queue = ("/queue", "/queue/dead", "/queue/dead/rows", "/queue/dead/replay")
    assert [route for route in (*routes, *more, *queue) if not re.search(rf"\$URL{re.escape(route)}[\"?]", shown)] == []


def test_meaning_is_found_without_a_common_word(readme: dict[int, Answered]) -> None:
    (by_vector,) = (block for block in README if '"mode": "vector"' in block.commands)
    (hit,) = json.loads(readme[by_vector.line].stdout)["results"]
    assert "nightly backup" in hit["content"]


@pytest.mark.parametrize("blocks", [TROUBLESHOOTING, DEPLOYMENT], ids=["troubleshooting", "deployment"])
def test_commands_of_document_end_as_it_says(blocks: list[Example], stack: RunningStack, tmp_path: Path) -> None:
    assert shutil.which("curl") and shutil.which("bash"), "the documents' commands need bash and curl: install them"
    assert len(blocks) >= 6
    for block, outcome in zip(blocks, run_session(stack, blocks, tmp_path), strict=True):
        if block.status is not None:
            assert outcome.status == block.status, (block.name, outcome)
        else:
            assert outcome.exit_status == (block.exit_status or 0), (block.name, outcome)
