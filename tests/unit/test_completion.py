"""Tab completion, in the shells that are installed, as somebody types."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.stack.layout import PROJECT_ROOT

PATIENCE_SECONDS = 30.0
_STARTS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "--interactive"],
}
_SOURCE = {
    "bash": "source <({python} -m app completion bash)",
    "zsh": "autoload -U compinit; compinit -u -D; source <({python} -m app completion zsh)",
    "fish": "{python} -m app completion fish | source",
}


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, shell: str, folder: Path) -> None:
        environment = {**os.environ, "HOME": str(folder), "TERM": "dumb", "PS1": "> ", "DATA_DIR": str(folder), "COLUMNS": "200"}
        self._parent, child = pty.openpty()
        # A session of its own, so that the shell takes the terminal.
        self._process = subprocess.Popen(
            _STARTS[shell], stdin=child, stdout=child, stderr=child, cwd=PROJECT_ROOT, env=environment, start_new_session=True
        )
        os.close(child)
        self._seen = ""

    def type(self, text: str) -> None:
        self._seen = ""
        os.write(self._parent, text.encode())

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not re.search(pattern, self._seen):
            assert time.monotonic() < deadline, self._seen
            if select.select([self._parent], [], [], 0.1)[0]:
                self._seen += os.read(self._parent, 65536).decode(errors="replace").replace("\a", "")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._parent)


def need(shell: str) -> None:
    """Go on where a shell is installed; skip the test where it is not and need not be."""
    if shutil.which(shell) is None:
        assert shell != "bash" and os.environ.get("NEXUS_REQUIRE_SHELLS") != "1", f"{shell} is needed"
        pytest.skip(f"{shell} is not installed")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shell_completes_commands_options_and_choices_on_a_terminal(shell: str, tmp_path: Path) -> None:
    need(shell)
    terminal = Terminal(shell, tmp_path)
    try:
        terminal.type(_SOURCE[shell].format(python=sys.executable) + "; echo rea''dy\n")
        terminal.wait_for(r"ready\r\n")
        terminal.type(f"{sys.executable} -m app reco\t")
        terminal.wait_for("app reconcile ")
        terminal.type("ru\t")
        terminal.wait_for("run")
        terminal.type("\x15")
        terminal.type(f"{sys.executable} -m app reconcile run --dr\t")
        terminal.wait_for("--dry-run")
        terminal.type("--kind wor\t")
        terminal.wait_for("working")
    finally:
        terminal.close()


def test_fish_completes_commands_with_their_helps(tmp_path: Path) -> None:
    need("fish")
    script = (
        f"{_SOURCE['fish'].format(python=sys.executable)}; complete -C '{sys.executable} -m app que'; complete -C 'python -m app queue re'"
    )
    done = subprocess.run(
        [*_STARTS["fish"][:2], "-c", script],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["queue", "replay"]


def test_other_uses_of_python_are_left_to_the_shell(tmp_path: Path) -> None:
    script = f"{_SOURCE['bash'].format(python=sys.executable)}; COMP_WORDS=(python -m http); COMP_CWORD=2; _nexus_app_completion python; "
    done = subprocess.run(
        ["bash", "-c", script + 'echo "[${COMPREPLY[*]}]"; complete -p python'],
        cwd=PROJECT_ROOT,
        env={**os.environ, "DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == "[]"
    assert "-o default" in done.stdout
