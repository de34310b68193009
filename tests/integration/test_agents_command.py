"""`agents` from the command line: export to a file, import, forget, with exit codes that a script can trust."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.bootstrap import Services
from app.cli.agents import agents
from tests.factories.episodes import new_episode
from tests.factories.statements import Sql

Run = Callable[..., Result]


@pytest.fixture
def run(services: Services, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("app.cli.agents.open_services", lambda: services)

    def invoke(*arguments: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(agents, arguments, input=answer)

    return invoke


def test_export_forget_and_import_of_an_agent(services: Services, run: Run, tmp_path: Path, sql: Sql) -> None:
    receipts = services.episodes.store_many("alice", [new_episode(f"n{number} ñ") for number in range(5)])
    file = tmp_path / "alice.ndjson"
    assert run("export", "alice", "-o", str(file)).exit_code == 0
    assert file.stat().st_mode & 0o077 == 0
    assert len(file.read_bytes().splitlines()) == 7
    assert run("export", "alice").stdout_bytes.splitlines()[1:-1] == file.read_bytes().splitlines()[1:-1]
    assert not file.with_name("alice.ndjson.part").exists()
    assert sql("SELECT DISTINCT key_id, action FROM memory_system.audit_log WHERE subject = 'alice'") == [(None, "export agent")]
    unchanged = run("import", "alice", str(file), "--json")
    assert (unchanged.exit_code, json.loads(unchanged.stdout)["unchanged"]) == (0, {"episode": 5})
    forgotten = run("forget", "alice", "--yes", "--json")
    assert (forgotten.exit_code, json.loads(forgotten.stdout.splitlines()[-1])["deleted"]["episodes"]) == (0, 5)
    refused = run("import", "alice", str(file))
    assert refused.exit_code == 1
    assert refused.stderr.count("410 gone") == 5
    # In an installation that never knew the ids it all comes back.
    sql("DELETE FROM memory_system.ledger")
    again = run("import", "alice", str(file))
    assert again.exit_code == 0, again.stderr
    assert services.episodes.get("alice", receipts[0].episode_id).content == "n0 ñ"


def test_file_that_was_cut_off_is_said_and_fails(services: Services, run: Run, tmp_path: Path) -> None:
    services.episodes.store("alice", new_episode())
    file = tmp_path / "alice.ndjson"
    run("export", "alice", "-o", str(file))
    file.write_bytes(b"\n".join(file.read_bytes().splitlines()[:-1]))
    result = run("import", "alice", str(file))
    assert (result.exit_code, "cut off" in result.stderr) == (1, True)


def test_export_that_fails_leaves_the_earlier_file(services: Services, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "alice.ndjson"
    file.write_text("earlier")

    def broken(*_: object) -> object:
        raise OSError("disk full")

    monkeypatch.setattr(services.exports, "lines", broken)
    assert run("export", "alice", "-o", str(file)).exit_code != 0
    assert file.read_text() == "earlier"


def test_forget_asks_first(services: Services, run: Run) -> None:
    services.episodes.store("alice", new_episode())
    assert run("forget", "alice", answer="n\n").exit_code == 1
    assert len(services.episodes.recent("alice", 10)) == 1
    assert run("forget", "alice", answer="y\n").exit_code == 0
    assert services.episodes.recent("alice", 10) == []


def test_name_that_no_agent_can_have_is_refused(run: Run) -> None:
    assert run("export", "a b").exit_code == 2
