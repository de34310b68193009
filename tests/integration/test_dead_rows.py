"""Dead rows on real PostgreSQL: by cause, page by page, replayed once, without content."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from app.bootstrap import Services
from app.cache.keys import DOORBELL
from app.config import Role
from app.db import Database
from app.queue.dead import DeadRowService, DeadSelection
from tests.factories.dead_rows import SECRET, kill, store
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import stored_row
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


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
