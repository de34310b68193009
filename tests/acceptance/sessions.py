"""A document's blocks run one after the other in one shell against a live stack, as its reader would type them."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from app.config import Settings
from tests.factories.documents import ROOT, Example

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


def run_session(
    settings: Settings,
    blocks: Sequence[Example],
    folder: Path,
    seconds: float = SESSION_SECONDS,
    more: Mapping[str, str] = MappingProxyType({}),
) -> list[Answered]:
    """Run the blocks one after the other in one shell, as a reader would, and return what each did.

    Args:
        settings: Of the stack that runs.
        blocks: In their order.
        folder: Where the shell is, and writes.
        seconds: How long all of it may take.
        more: Further variables of its environment.
    """
    lines = [_CURL]
    for number, block in enumerate(blocks):
        lines.append(
            f"{{\n{_here(settings, block.commands)}\n}} >{folder}/{number}.out 2>{folder}/{number}.err; echo $? >{folder}/{number}.rc"
        )
    (folder / "session.sh").write_text("\n".join(lines), encoding="utf-8")
    subprocess.run(["bash", str(folder / "session.sh")], cwd=folder, env={**_environment(settings), **more}, check=True, timeout=seconds)
    return [
        Answered(
            (folder / f"{number}.out").read_text(encoding="utf-8"),
            (folder / f"{number}.err").read_text(encoding="utf-8"),
            int((folder / f"{number}.rc").read_text(encoding="utf-8")),
        )
        for number in range(len(blocks))
    ]


def _here(settings: Settings, commands: str) -> str:
    """Return the commands with the places of this stack instead of the usual ones."""
    key_file = shlex.quote(str(settings.secret_path("admin_api_key")))
    places = {
        "http://127.0.0.1:8002": f"http://127.0.0.1:{settings.port}",
        "secrets/admin_api_key.txt": key_file,
        ".venv/bin/python": sys.executable,
    }
    for usual, here in places.items():
        commands = commands.replace(usual, here)
    return commands


def _environment(settings: Settings) -> dict[str, str]:
    python_first = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    return {
        **os.environ,
        "PATH": python_first,
        # The shell is in a folder of its own, so that what it writes is not in the repository.
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "DATA_DIR": str(settings.data_dir),
        "SECRETS_DIR": str(settings.secrets_dir),
        "PORT": str(settings.port),
        "FLOWER_PORT": str(settings.flower_port),
    }
