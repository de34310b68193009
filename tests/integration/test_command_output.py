"""What commands write where: with --json only JSON on stdout, messages on stderr, and expected failures as one line."""

import json
import logging
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from app.bootstrap import Services
from app.cli.main import main, nexus
from app.config import Settings
from app.stack.layout import PROJECT_ROOT
from tests.factories.episodes import new_episode

Run = Callable[..., Result]

REPORTS: list[tuple[str, type]] = [
    ("queue status", dict),
    ("queue dead", dict),
    ("queue dead --cause unknown", dict),
    ("queue replay --all", dict),
    ("queue advise", dict),
    ("keys list", list),
    ("keys create --role operator --name dashboard", dict),
    ("keys audit", list),
    ("reconcile run", list),
    ("reconcile run --deep --dry-run", list),
    ("reconcile runs", list),
    ("integrity verify", dict),
    ("integrity seal --everything", dict),
    ("integrity audit", dict),
    ("embedding status", list),
    ("db migrate", dict),
    ("secrets init", dict),
    ("agents forget alice --yes", dict),
]


@pytest.fixture
def environment(database_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The test's servers, named by the environment as an operator names external ones; what commands do to logging is undone."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for name in database_settings.model_fields_set:
        monkeypatch.setenv(name.upper(), str(getattr(database_settings, name)))
    yield database_settings
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def run(environment: Settings) -> Run:
    return lambda line: CliRunner().invoke(nexus, line.split() if isinstance(line, str) else line)


def test_every_report_is_json_alone_on_stdout_and_a_table_without(services: Services, run: Run) -> None:
    services.episodes.store_many("alice", [new_episode(f"number {n}") for n in range(3)])
    for line, kind in REPORTS:
        done = run(f"{line} --json")
        assert done.exit_code == 0, (line, done.output, done.exception)
        (only,) = done.stdout.splitlines()
        assert isinstance(json.loads(only), kind), line
    for line, _ in REPORTS:
        done = run(line)
        assert done.exit_code == 0, (line, done.output, done.exception)
        assert done.stdout and not done.stdout.startswith(("{", "[")), line
        assert "\x1b" not in done.output


def test_names_are_shown_as_they_are(services: Services, run: Run) -> None:
    run(["keys", "create", "--role", "operator", "--name", "[red]the :smile: one[/red]"])
    assert "[red]the :smile: one[/red]" in run("keys list").stdout


def _main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str]:
    monkeypatch.setattr(sys, "argv", ["app", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.usefixtures("environment")
def test_file_that_cannot_be_used_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad").write_bytes(b"\xff\xfe\n")
    no_folder = str(tmp_path / "none" / "file")
    for arguments, said in (
        (("agents", "export", "alice", "-o", no_folder), f"error: {no_folder}.part: No such file or directory\n"),
        (("integrity", "verify", str(tmp_path / "bad")), "error: the file is not UTF-8 text\n"),
    ):
        assert _main(monkeypatch, capsys, *arguments) == (1, said)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("queue", "statu"),
        ("queue", "status", "--jsno"),
        ("reconcile", "run", "--kind", "it"),
        ("agents", "export", "a b"),
        ("queue", "replay"),
        ("queue", "dead", "--limit", "3"),
        ("keys", "create", "--role", "agent", "--name", "x"),
        ("keys", "create", "--role", "operator", "--name", "\x1b[31mred"),
        ("db", "bootstrap"),
    ],
)
@pytest.mark.usefixtures("environment")
def test_wrong_command_line_is_two(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = _main(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "Error: " in said


@pytest.mark.usefixtures("environment")
def test_database_that_is_gone_is_one_line_and_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    assert _main(monkeypatch, capsys, "keys", "list", "--json") == (1, "error: the database cannot be reached or gave up; try again\n")


@pytest.mark.parametrize("line", ["keys list", "keys audit", "embedding status", "db migrate", "queue status"])
def test_without_a_stack_a_command_says_so(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    status, said = _main(monkeypatch, capsys, *line.split())
    assert (status, said.startswith("error: no stack runs here; start one")) == (1, True), said


@pytest.mark.usefixtures("environment")
def test_output_that_nobody_reads_ends_the_command_quietly() -> None:
    for line in ("keys audit --json", "keys list", "agents export alice", "queue status"):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([sys.executable, "-m", "app", *line.split()], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)
        assert done.returncode == -signal.SIGPIPE, line
        assert "rror" not in done.stderr, line


@pytest.mark.usefixtures("environment")
def test_closed_stdout_is_one_line() -> None:
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m app keys list >&-"], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: stdout is closed; send it to /dev/null if nobody is to read it\n")
    silent = subprocess.run(["sh", "-c", f"{sys.executable} -m app keys list 2>&-"], stdout=subprocess.PIPE, text=True, check=False)
    assert (silent.returncode, silent.stdout.split()[:2]) == (0, ["key", "id"])


def test_interrupt_while_it_imports_is_130(tmp_path: Path) -> None:
    """A module that is slow to import stands for those that are."""
    (tmp_path / "rich.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(30)\n")
    (tmp_path / "click.py").write_text("import rich\n")
    program = subprocess.Popen(
        [sys.executable, "-m", "app", "keys", "list"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT_ROOT}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "importing\n"
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=20)
    assert (program.returncode, said) == (130, "\ninterrupted\n")


def test_agent_that_has_nothing_is_said(run: Run) -> None:
    done = run("agents export nobody")
    assert done.exit_code == 0
    assert "nobody has nothing" in done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.usefixtures("environment")
def test_interrupted_command_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.identity.service.KeyService.list_keys", interrupt)
    assert _main(monkeypatch, capsys, "keys", "list") == (130, "\ninterrupted\n")


def test_colours_are_for_terminals_and_no_color_is_respected(environment: Settings) -> None:
    def shown(**variables: str) -> str:
        parent, child = pty.openpty()
        # FORCE_COLOR of whoever runs the tests would be a choice of its own.
        own = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "NO_COLOR"}}
        subprocess.run([sys.executable, "-m", "app", "keys", "list"], stdout=child, env={**own, "TERM": "xterm", **variables}, check=True)
        os.close(child)
        text = os.read(parent, 65536).decode()
        os.close(parent)
        return text

    assert "\x1b[1m" in shown()
    assert "\x1b[3" not in shown(NO_COLOR="1"), "no colours"
