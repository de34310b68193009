"""Dead rows and the state of the queue on real PostgreSQL: by cause, page by page, replayed once, without content."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from app.bootstrap import Services
from app.cache.keys import DOORBELL
from app.config import Role, Settings
from app.db import Database
from app.queue import workers
from app.queue.dead import DeadRowService, DeadSelection
from app.queue.status import QueueStatusService
from app.queue.workers import WorkerIdentity
from app.stack.layout import PROJECT_ROOT
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import new_episode, stored_row
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

SECRET = "the launch code is 0451"


class Bell:
    """Counts how often it was rung."""

    def __init__(self) -> None:
        self.rings = 0

    def __call__(self) -> None:
        self.rings += 1


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture(params=["nexus_app", "nexus_worker"])
def dead_rows(request: pytest.FixtureRequest, login: Callable[[Role], Database], bell: Bell) -> DeadRowService:
    """The service as either role that may use it."""
    return DeadRowService(login(request.param), bell)


def store(services: Services, agent_id: str, count: int, **fields: Any) -> list[UUID]:
    episodes = [new_episode(f"{SECRET} {number}", **fields) for number in range(count)]
    return [receipt.episode_id for receipt in services.episodes.store_many(agent_id, episodes)]


def kill(sql: Sql, ids: Sequence[UUID], cause: str | None, died: str = "now()") -> None:
    """Make rows dead as five failures leave them."""
    sql(
        f"UPDATE memory_system.embeddings_queue SET state = 'dead', retry_count = 5, last_error = %s, processed_at = {died}"
        " WHERE target_id = ANY (%s::uuid[])",
        cause,
        [str(target_id) for target_id in ids],
    )


def test_causes_are_counted_over_agents_most_frequent_first(services: Services, dead_rows: DeadRowService, sql: Sql) -> None:
    assert dead_rows.causes().total == 0
    alice, bob = store(services, "alice", 7), store(services, "bob", 2)
    kill(sql, [*alice[:6], bob[0]], "encoder_failed: RuntimeError", "now() - interval '1 hour'")
    kill(sql, alice[:1], "encoder_failed: RuntimeError")
    kill(sql, alice[6:], None)
    found = dead_rows.causes()
    assert found.total == 8
    assert [(cause.cause, cause.rows, cause.agents) for cause in found.causes] == [
        ("encoder_failed: RuntimeError", 7, 2),
        ("unknown", 1, 1),
    ]
    worst = found.causes[0]
    assert worst.first_dead_at is not None and worst.last_dead_at is not None
    assert (worst.last_dead_at - worst.first_dead_at).total_seconds() > 3_500
    assert len(worst.examples) == 5
    assert worst.examples[0] == alice[0]
    assert SECRET not in repr(found)


def test_every_dead_row_is_on_exactly_one_page(services: Services, dead_rows: DeadRowService, sql: Sql) -> None:
    ids = store(services, "alice", 7)
    kill(sql, ids, "a")
    other = store(services, "bob", 2)
    kill(sql, other, "b")
    for limit in (1, 2, 3, 7, 100):
        seen: list[UUID] = []
        cursor = None
        while True:
            page = dead_rows.rows("a", cursor, limit)
            assert 0 < len(page.items) <= limit
            seen += [row.target_id for row in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == sorted(ids)
    everything = dead_rows.rows().items
    assert [row.target_id for row in everything] == sorted([*ids, *other])
    assert {(row.target_kind, row.attempts, row.model_id) for row in everything} == {("episodic", 5, 1)}
    assert {row.agent_id for row in everything} == {"alice", "bob"}
    assert SECRET not in repr(everything)
    assert dead_rows.rows("c").items == []
    assert dead_rows.rows("a", limit=7).next_cursor is None


def test_rows_of_one_target_stay_on_one_page(services: Services, dead_rows: DeadRowService, sql: Sql) -> None:
    ids = sorted(store(services, "alice", 3))
    sql(
        "INSERT INTO memory_system.embedding_models (model_id, name, version, dimensions, fingerprint, is_target)"
        " VALUES (2, 'other', 'other@v1', 384, 'x', true)"
    )
    sql(
        "INSERT INTO memory_system.embeddings_queue (target_kind, target_id, model_id, agent_id, input_sha256, input_chars)"
        " SELECT target_kind, target_id, 2, agent_id, input_sha256, input_chars FROM memory_system.embeddings_queue"
    )
    kill(sql, ids, "a")
    first = dead_rows.rows(limit=1)
    assert [(row.target_id, row.model_id) for row in first.items] == [(ids[0], 1), (ids[0], 2)]
    second = dead_rows.rows(after=first.next_cursor, limit=3)
    assert [(row.target_id, row.model_id) for row in second.items] == [(ids[1], 1), (ids[1], 2), (ids[2], 1), (ids[2], 2)]
    assert second.next_cursor is None
    assert dead_rows.replay(DeadSelection(ids=(ids[0],)), 100, None).replayed == 2


def test_replay_of_a_cause_leaves_the_others_dead(services: Services, dead_rows: DeadRowService, sql: Sql, bell: Bell) -> None:
    ids = store(services, "alice", 3)
    kill(sql, ids[:2], "a")
    kill(sql, ids[2:], "b")
    replay = dead_rows.replay(DeadSelection(cause="a"), 100, None)
    assert (replay.replayed, replay.remaining, bell.rings) == (2, 0, 1)
    row = stored_row(sql, ids[0])
    assert (row.state, row.retry_count, row.last_error, row.processed_at) == ("pending", 0, None, None)
    assert row.due_in_seconds <= 0
    assert stored_row(sql, ids[2]).state == "dead"
    assert dead_rows.replay(DeadSelection(cause="a"), 100, None).replayed == 0
    assert bell.rings == 1


def test_replay_by_ids_ignores_what_is_not_dead(services: Services, dead_rows: DeadRowService, sql: Sql) -> None:
    ids = store(services, "alice", 3)
    kill(sql, ids[:2], "a")
    assert dead_rows.count(DeadSelection(ids=tuple(ids))) == 2
    replay = dead_rows.replay(DeadSelection(ids=(ids[0], ids[2], uuid4())), 100, None)
    assert (replay.replayed, replay.remaining) == (1, 0)
    assert [stored_row(sql, target_id).state for target_id in ids] == ["pending", "dead", "pending"]


def test_replay_stops_at_its_limit_and_says_what_remains(services: Services, dead_rows: DeadRowService, sql: Sql) -> None:
    kill(sql, store(services, "alice", 5), "a")
    replay = dead_rows.replay(DeadSelection(), 2, None)
    assert (replay.replayed, replay.remaining) == (2, 3)
    assert dead_rows.count(DeadSelection()) == 3


def test_row_that_somebody_holds_is_passed_over(services: Services, dead_rows: DeadRowService, sql: Sql, worker_database: Database) -> None:
    ids = store(services, "alice", 2)
    kill(sql, ids, "a")
    with worker_database.transaction() as connection:
        connection.exec_driver_sql("SELECT 1 FROM memory_system.embeddings_queue WHERE target_id = %(id)s FOR UPDATE", {"id": str(ids[0])})
        replay = dead_rows.replay(DeadSelection(), 10, None)
        assert (replay.replayed, replay.remaining) == (1, 1)
        assert list(dead_rows.replay_in_steps(DeadSelection(), None)) == []


def test_replay_in_steps_ends_though_rows_die_again(services: Services, dead_rows: DeadRowService, sql: Sql, bell: Bell) -> None:
    store(services, "alice", 1000)
    store(services, "bob", 700)
    ids = [row[0] for row in sql("SELECT target_id FROM memory_system.embeddings_queue")]
    kill(sql, ids, "a")
    steps = []
    for step in dead_rows.replay_in_steps(DeadSelection(), None):
        steps.append(step)
        sql(
            "UPDATE memory_system.embeddings_queue SET state = 'dead', last_error = 'a', processed_at = clock_timestamp()"
            " WHERE state = 'pending'"
        )
    assert steps == [1000, 700]
    assert bell.rings == 2
    assert dead_rows.count(DeadSelection()) == 1700


def test_replay_is_logged_and_recorded_with_who_how_many_and_why(services: Services, dead_rows: DeadRowService, sql: Sql) -> None:
    kill(sql, store(services, "alice", 2), "encoder_failed: RuntimeError")
    key_id = uuid4()
    with capture_logs() as lines:
        dead_rows.replay(DeadSelection(cause=SECRET), 100, key_id)
        dead_rows.replay(DeadSelection(cause="encoder_failed: RuntimeError"), 100, key_id)
    assert [(line["event"], line["by"], line["rows"], line["cause"]) for line in lines] == [
        ("dead_rows_replayed", str(key_id), 2, "encoder_failed: RuntimeError")
    ]
    entries = sql("SELECT key_id::text, action, details FROM memory_system.audit_log")
    assert entries == [(str(key_id), "replay dead rows", {"rows": 2, "cause": "encoder_failed: RuntimeError", "named_ids": 0})]


def test_poison_is_embedded_once_its_cause_is_gone(services: Services, workshop: Workshop, encoder: FakeEncoder, sql: Sql) -> None:
    (poison, *_) = store(services, "alice", 20)

    def fail(texts: Sequence[str]) -> None:
        if f"{SECRET} 0" in texts:
            raise RuntimeError

    encoder.before = fail
    workshop.drain(waits=True)
    assert stored_row(sql, poison).state == "dead"
    (cause,) = services.dead_rows.causes().causes
    assert (cause.rows, cause.examples) == (1, [poison])
    encoder.before = lambda _: None
    subscription: Any = services.episodes._cache._redis.redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    with closing(subscription):
        subscription.subscribe(DOORBELL)
        subscription.get_message(timeout=1)
        assert services.dead_rows.replay(DeadSelection(cause=cause.cause), 100, None).replayed == 1
        assert subscription.get_message(timeout=2)["channel"] == DOORBELL.encode()
    assert workshop.drain() == 1
    row = stored_row(sql, poison)
    assert (row.state, row.retry_count) == ("done", 1)


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
