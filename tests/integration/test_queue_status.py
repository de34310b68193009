"""The state of the queue and of who works on it, on real PostgreSQL, and the commands that show it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.bootstrap import Services
from app.config import Role, Settings
from app.db import Database
from app.queue import workers
from app.queue.status import QueueStatusService
from app.queue.workers import WorkerIdentity
from app.stack.layout import PROJECT_ROOT
from tests.factories.dead_rows import SECRET, kill, store
from tests.factories.episodes import stored_row
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


def test_empty_queue_shows_four_lanes_of_zero(app_database: Database, database_settings: Settings) -> None:
    status = QueueStatusService(app_database, database_settings).status()
    assert [lane.lane for lane in status.lanes] == ["critical", "high", "normal", "low"]
    assert {(lane.pending, lane.waiting, lane.processing, lane.oldest_pending_age_seconds) for lane in status.lanes} == {(0, 0, 0, 0.0)}
    assert (status.pending, status.processing, status.done, status.dead, status.oldest_pending_age_seconds) == (0, 0, 0, 0, 0.0)
    assert (status.workers, status.dispatchers, status.advice.workers_advised) == ([], [], 1)


@pytest.mark.parametrize(
    ("problem", "is_heard"),
    [
        (None, True),
        ("encoder_failed: RuntimeError", True),
        ("worker_deaf: its main process stands still", False),
        ("worker_deaf: its main process is gone", False),
    ],
)
def test_container_is_well_unless_only_a_new_start_helps(
    problem: str | None, is_heard: bool, worker_database: Database, database_settings: Settings
) -> None:
    service = QueueStatusService(worker_database, database_settings)
    assert not service.is_heard_from("worker", "h")
    with worker_database.transaction() as connection:
        workers.beat(connection, WorkerIdentity("worker@h:1", "worker", "h", 1), problem=problem)
    assert service.is_heard_from("worker", "h") is is_heard


@pytest.mark.parametrize("role", ["nexus_app", "nexus_worker"])
def test_status_counts_all_agents_by_lane_and_names_who_works(
    role: Role, login: Callable[[Role], Database], services: Services, workshop: Workshop, sql: Sql, database_settings: Settings
) -> None:
    store(services, "alice", 3, importance_score=0.95)
    waiting, *_ = store(services, "bob", 4, importance_score=0.1)
    sql("UPDATE memory_system.embeddings_queue SET due_at = now() + interval '1 hour' WHERE target_id = %s", str(waiting))
    dead = store(services, "carol", 2)
    kill(sql, dead, "a")
    sql("UPDATE memory_system.embeddings_queue SET enqueued_at = now() - interval '100 s' WHERE target_id = %s", str(waiting))
    workshop.announce(worker_id="worker@test:1")
    workshop.queue.beat(WorkerIdentity("dispatcher@test:2", "dispatcher", "test", 2))
    workshop.queue.beat(WorkerIdentity("worker@test:3", "worker", "test", 3, 1, workshop.embedding.model.model_id, "fp32"))
    workshop.queue.beat(WorkerIdentity("worker@test:4", "worker", "test", 4, 1))
    sql("UPDATE memory_system.workers SET chars_per_second = 200, slots = 0, problem = 'encoder_failed: RuntimeError' WHERE pid = 3")
    sql("UPDATE memory_system.workers SET chars_per_second = 640 WHERE pid = 1")
    sql("UPDATE memory_system.workers SET heartbeat_at = now() - interval '10 minutes' WHERE pid = 4")
    service = QueueStatusService(login(role), database_settings)
    status = service.status(drain_minutes=0.002)
    assert [(lane.lane, lane.pending, lane.waiting) for lane in status.lanes] == [
        ("critical", 3, 0),
        ("high", 0, 0),
        ("normal", 0, 0),
        ("low", 4, 1),
    ]
    assert (status.pending, status.waiting, status.processing, status.done, status.dead) == (7, 1, 0, 0, 2)
    assert 100 <= status.oldest_pending_age_seconds == status.lanes[3].oldest_pending_age_seconds < 160
    assert [(worker.worker_id, worker.problem) for worker in status.workers] == [
        ("worker@test:1", None),
        ("worker@test:3", "encoder_failed: RuntimeError"),
    ]
    assert status.workers[0].model == "all-MiniLM-L6-v2"
    assert 0 <= status.workers[0].seconds_since_heartbeat < 60
    assert [dispatcher.pid for dispatcher in status.dispatchers] == [2]
    assert (status.advice.due, status.advice.due_chars) == (6, 6 * 64)
    assert (status.advice.workers_at_work, status.advice.worker_chars_per_second, status.advice.workers_advised) == (1, 640.0, 5)
    assert service.advice(drain_minutes=0.002) == status.advice
    assert services.health.report().components["worker"]["detail"] == "1 of 2 alive paused: encoder_failed: RuntimeError"


class CommandLine:
    """`python -m app queue` on the test's database, as an operator types it."""

    def __init__(self, settings: Settings) -> None:
        named = {name.upper(): str(getattr(settings, name)) for name in settings.model_fields_set}
        self._environment = {**os.environ, **named}

    def __call__(self, *arguments: str, status: int = 0, typed: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command that must end with the status."""
        command = [sys.executable, "-m", "app", "queue", *arguments]
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, env=self._environment, input=typed, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        assert SECRET not in done.stdout + done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command with --json and return what it printed, which is all that stdout holds."""
        return json.loads(self(*arguments, "--json").stdout)


@pytest.fixture
def command(database_settings: Settings) -> CommandLine:
    return CommandLine(database_settings)


def test_commands_show_the_queue_and_replay_by_id_by_cause_and_all(services: Services, command: CommandLine, sql: Sql) -> None:
    assert command("dead").stdout == "no dead rows\n"
    assert command("replay", "--all").stdout == "no dead rows to replay\n"
    ids = store(services, "alice", 6)
    kill(sql, ids[:4], "encoder_failed: RuntimeError")
    kill(sql, ids[4:], "worker_lost: WorkerLostError")
    shown = command("status")
    assert shown.stdout.startswith("0 pending (0 of them wait for another attempt), 0 processing, 0 done, 6 dead")
    assert "no worker or no dispatcher was heard from lately" in shown.stderr
    assert command.json("status")["dead"] == 6
    assert "encoder_failed: RuntimeError" in command("dead").stdout
    assert [(cause["cause"], cause["rows"]) for cause in command.json("dead")["causes"]] == [
        ("encoder_failed: RuntimeError", 4),
        ("worker_lost: WorkerLostError", 2),
    ]
    listed = command("dead", "--cause", "worker_lost: WorkerLostError", "--limit", "1").stdout
    assert f"more: --after {min(ids[4:])}" in listed
    assert command.json("replay", "--id", str(ids[0]), "--id", str(uuid4())) == {"replayed": 1, "remaining": 0}
    done = command("replay", "--cause", "encoder_failed: RuntimeError")
    assert (done.stdout, done.stderr) == ("replayed 3 rows; none of those asked for is dead now\n", "")
    assert stored_row(sql, ids[4]).state == "dead"
    refused = command("replay", "--all", typed="n\n", status=1)
    assert "replay all 2 dead rows?" in refused.stderr
    assert stored_row(sql, ids[4]).state == "dead"
    assert command("replay", "--all", typed="y\n").stdout.endswith("replayed 2 rows; none of those asked for is dead now\n")
    assert command.json("status")["pending"] == 6
    assert (
        command("advise", "--minutes", "3").stdout == "1 advised, 0 at work: no worker has measured its rate yet; 1 worker until one has\n"
    )
    sql("UPDATE memory_system.embeddings_queue SET state = 'dead', last_error = 'a'")
    assert command.json("replay", "--all", "--yes") == {"replayed": 6, "remaining": 0}


@pytest.mark.parametrize("command_line", [("dead",), ("replay",)])
@pytest.mark.parametrize("cause", ["", " ", "a\udcff", "a\nb"])
def test_what_cannot_be_a_cause_is_refused_without_a_traceback(command_line: tuple[str], cause: str, command: CommandLine) -> None:
    refused = command(*command_line, "--cause", cause, status=2)
    assert "must be a cause as `queue dead` spells it" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_page_without_a_cause_is_refused(command: CommandLine) -> None:
    assert "give --cause CAUSE with them" in command("dead", "--limit", "3", status=2).stderr


@pytest.mark.parametrize("arguments", [(), ("--all", "--cause", "a"), ("--cause", "a", "--id", str(UUID(int=1)))])
def test_replay_of_none_or_two_selections_is_a_wrong_command_line(arguments: tuple[str, ...], command: CommandLine) -> None:
    done = command("replay", *arguments, status=2)
    assert "Error: say which rows to replay: exactly one of" in done.stderr
