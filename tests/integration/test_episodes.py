"""Storing episodes: receipts, replays, batches that are one, and every character back as it was sent."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from app.bootstrap import Services
from app.episodes import repository
from app.errors import Conflict, DatabaseUnavailable, Gone, IdempotencyMismatch, InvalidRequest, NotFound
from tests.factories.episodes import delete, edit, new_episode
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


def test_receipt_tells_what_was_stored(services: Services, sql: Sql) -> None:
    content = "línea\r\n— 日本 🎉\u200d x\u0301 \ufeff "
    receipt = services.episodes.store("alice", new_episode(content))
    assert receipt.content_sha256 == sha256(content.encode()).hexdigest()
    assert (receipt.version, receipt.agent_id, receipt.embedding_state, receipt.replayed) == (1, "alice", "pending", False)
    assert services.episodes.get("alice", receipt.episode_id).content == content
    stored = "SELECT seq, replace(receipt_nonce::text, '-', '') FROM nexus_memory.zep_episodic_memory"
    assert sql(stored) == [(receipt.seq, receipt.nonce)]


def test_every_field_comes_back(services: Services) -> None:
    when = datetime(2020, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
    fields: dict[str, Any] = {
        "action_type": "deploy",
        "actor": "carol",
        "session_id": "s 1/ñ",
        "tags": ("b", "a", "ñ"),
        "importance_score": 0.123456789,
        "occurred_at": when,
        "metadata": {"n": 1, "deep": [None, {"ü": 1.5}], "big": 2**53},
        "action_details": {"step": 1},
        "context_state": {"branch": "main"},
        "project": "apollo",
        "language": "es",
    }
    view = services.episodes.get("alice", services.episodes.store("alice", new_episode(**fields)).episode_id)
    for name, value in fields.items():
        found = getattr(view, name)
        assert (tuple(found) if isinstance(value, tuple) else found) == value, name


def test_defaults(services: Services) -> None:
    before = datetime.now(UTC)
    view = services.episodes.get("alice", services.episodes.store("alice", new_episode()).episode_id)
    assert (view.action_type, view.importance_score, view.tags, view.metadata, view.language) == ("note", 0.5, [], {}, "en")
    assert (view.session_id, view.actor, view.project, view.action_details, view.context_state) == (None,) * 5
    assert abs(view.occurred_at - before) < timedelta(seconds=10)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200).filter(lambda s: s.strip()))
def test_any_text_comes_back_as_it_was(services: Services, content: str) -> None:
    receipt = services.episodes.store("alice", new_episode(content))
    assert services.episodes.get("alice", receipt.episode_id).content == content


def test_replay_returns_the_first_receipt_also_after_an_edit(services: Services, workshop: Workshop, sql: Sql) -> None:
    episode = new_episode("first", idempotency_key="k")
    first = services.episodes.store("alice", episode)
    again = services.episodes.store("alice", episode)
    assert again == replace(first, replayed=True)
    edit(services.database, "alice", first.episode_id, "second")
    workshop.drain()
    assert services.episodes.store("alice", episode) == replace(first, replayed=True, embedding_state="done")
    assert services.episodes.get("alice", first.episode_id).content == "second"
    assert sql.one("SELECT count(*) FROM memory_system.ledger WHERE event = 'accepted'") == 1


def test_key_with_another_body_is_refused(services: Services, sql: Sql) -> None:
    services.episodes.store("alice", new_episode("first", idempotency_key="k"))
    with pytest.raises(IdempotencyMismatch):
        services.episodes.store("alice", new_episode("second", idempotency_key="k"))
    with pytest.raises(IdempotencyMismatch):
        services.episodes.store_many("alice", [new_episode("new"), new_episode("third", idempotency_key="k")])
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory") == 1


def test_key_of_a_deleted_episode_is_gone(services: Services) -> None:
    episode = new_episode("first", idempotency_key="k")
    receipt = services.episodes.store("alice", episode)
    delete(services.database, "alice", receipt.episode_id)
    with pytest.raises(Gone):
        services.episodes.store("alice", episode)
    with pytest.raises(Gone):
        services.episodes.get("alice", receipt.episode_id)
    # Another agent's keys are its own.
    assert not services.episodes.store("bob", episode).replayed


def test_keys_of_two_agents_do_not_meet(services: Services) -> None:
    ours = services.episodes.store("alice", new_episode("ours", idempotency_key="k"))
    theirs = services.episodes.store("bob", new_episode("theirs", idempotency_key="k"))
    assert ours.episode_id != theirs.episode_id
    assert not theirs.replayed


def test_fifty_identical_posts_at_once_store_one(services: Services, sql: Sql) -> None:
    episode = new_episode("once", idempotency_key="k", project="apollo")
    with ThreadPoolExecutor(50) as pool:
        receipts = list(pool.map(lambda _: services.episodes.store("alice", episode), range(50)))
    assert len({(receipt.episode_id, receipt.seq, receipt.nonce, receipt.content_sha256) for receipt in receipts}) == 1
    assert sum(not receipt.replayed for receipt in receipts) == 1
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory") == 1
    assert sql.one("SELECT count(*) FROM memory_system.ledger") == 1
    assert services.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def opposite_batches(services: Services, sql: Sql) -> None:
    """Four clients send the same keys, every other one in the opposite order."""
    batch = [new_episode(f"item {n}", idempotency_key=f"k{n}") for n in range(300)]

    def store(n: int) -> set[str]:
        return {receipt.nonce for receipt in services.episodes.store_many("alice", batch if n % 2 else batch[::-1])}

    with ThreadPoolExecutor(4) as pool:
        nonces = list(pool.map(store, range(4)))
    assert nonces[1:] == nonces[:1] * 3
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory") == 300
    assert sql.one("SELECT count(*) FROM memory_system.ledger") == 300


def test_opposite_batches_of_the_same_keys_neither_deadlock_nor_double(services: Services, sql: Sql) -> None:
    opposite_batches(services, sql)


def opposite_batches_again_and_again(services: Services, sql: Sql) -> None:
    for _ in range(8):
        opposite_batches(services, sql)
        sql("DELETE FROM nexus_memory.zep_episodic_memory; DELETE FROM memory_system.ledger")


def test_mutant_whose_batches_take_no_turns_deadlocks(services: Services, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "take_turn", lambda *_: None)
    with pytest.raises(DatabaseUnavailable):
        opposite_batches_again_and_again(services, sql)


def test_batch_keeps_the_order_of_its_items(services: Services) -> None:
    receipts = services.episodes.store_many("alice", [new_episode(f"item {n}") for n in range(200)])
    assert [receipt.seq for receipt in receipts] == sorted(receipt.seq for receipt in receipts)
    contents = [services.episodes.get("alice", receipt.episode_id).content for receipt in receipts[::50]]
    assert contents == [f"item {n}" for n in range(0, 200, 50)]


def test_batch_mixes_new_and_replayed_items_in_order(services: Services) -> None:
    old = services.episodes.store("alice", new_episode("old", idempotency_key="old"))
    items = [new_episode("a", idempotency_key="a"), new_episode("old", idempotency_key="old"), new_episode("b")]
    receipts = services.episodes.store_many("alice", items)
    assert [receipt.replayed for receipt in receipts] == [False, True, False]
    assert receipts[1].episode_id == old.episode_id
    assert services.episodes.get("alice", receipts[2].episode_id).content == "b"


def test_same_key_twice_in_a_batch_is_one_episode(services: Services, sql: Sql) -> None:
    item = new_episode("twin", idempotency_key="k")
    first, second = services.episodes.store_many("alice", [item, item])
    assert (first.episode_id, first.replayed, second.replayed) == (second.episode_id, False, True)
    with pytest.raises(IdempotencyMismatch):
        services.episodes.store_many("alice", [new_episode("x", idempotency_key="j"), new_episode("y", idempotency_key="j")])
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory") == 1


@pytest.mark.parametrize("bad", [{"content": " "}, {"importance_score": 2.0}, {"content": "a\0b"}, {"metadata": {"x": "\0"}}])
@pytest.mark.parametrize("place", [0, 2])
def test_one_bad_item_stores_nothing(bad: dict[str, object], place: int, services: Services, sql: Sql) -> None:
    items = [new_episode(f"good {n}", project="apollo") for n in range(2)]
    items.insert(place, new_episode(**bad))  # type: ignore[arg-type]
    with pytest.raises((InvalidRequest, IntegrityError)):
        services.episodes.store_many("alice", items)
    for table in ("nexus_memory.zep_episodic_memory", "nexus_memory.projects", "memory_system.ledger", "memory_system.embeddings_queue"):
        assert sql.one(f"SELECT count(*) FROM {table}") == 0, table


def test_projects_are_made_once_and_by_agent(services: Services, sql: Sql) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: services.episodes.store("alice", new_episode(f"{n}", project="apollo")), range(16)))
    services.episodes.store("bob", new_episode(project="apollo"))
    services.episodes.store_many("alice", [new_episode(project="b"), new_episode(project="a"), new_episode(project="b")])
    assert sorted(sql("SELECT agent_id, name FROM nexus_memory.projects")) == [
        ("alice", "a"),
        ("alice", "apollo"),
        ("alice", "b"),
        ("bob", "apollo"),
    ]


def test_opposite_orders_of_new_projects_do_not_deadlock(services: Services) -> None:
    def store(n: int) -> None:
        names = [f"p{n // 2}-{k}" for k in range(10)]
        services.episodes.store_many("alice", [new_episode(project=name) for name in (names if n % 2 else names[::-1])])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store, range(16)))


def test_unknown_episode_is_not_found(services: Services) -> None:
    with pytest.raises(NotFound):
        services.episodes.get("alice", uuid4())


def test_recent_is_ordered_by_when_it_happened_then_by_arrival(services: Services) -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    items = [("old", -1), ("first of two", 0), ("second of two", 0), ("new", 1)]
    services.episodes.store_many(
        "alice", [new_episode(name, occurred_at=day + timedelta(days=shift)) for name, shift in reversed(items[:1])]
    )
    services.episodes.store_many("alice", [new_episode(name, occurred_at=day + timedelta(days=shift)) for name, shift in items[1:]])
    assert [view.content for view in services.episodes.recent("alice", 10)] == ["new", "second of two", "first of two", "old"]
    assert [view.content for view in services.episodes.recent("alice", 2)] == ["new", "second of two"]


def test_recent_narrows_by_session_and_tags(services: Services) -> None:
    services.episodes.store_many(
        "alice",
        [
            new_episode("a", session_id="s", tags=("x", "y")),
            new_episode("b", session_id="s", tags=("x",)),
            new_episode("c", session_id="t", tags=("x", "y")),
        ],
    )
    assert [view.content for view in services.episodes.recent("alice", 10, "s")] == ["b", "a"]
    assert [view.content for view in services.episodes.recent("alice", 10, "s", ["x", "y"])] == ["a"]
    assert [view.content for view in services.episodes.recent("alice", 10, None, ["y"])] == ["c", "a"]
    assert services.episodes.recent("alice", 10, "'; DROP TABLE x; --") == []
    assert services.episodes.recent("bob", 10) == []


def test_thousand_failing_requests_leave_no_connection_out(services: Services) -> None:
    for _ in range(300):
        with pytest.raises(NotFound):
            services.episodes.get("alice", uuid4())
        with pytest.raises((InvalidRequest, IntegrityError)):
            services.episodes.store("alice", new_episode(" "))
    assert services.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_project_that_vanishes_under_a_write_is_a_conflict(services: Services, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody forgets the agent between the look for its project and the episode that names it."""
    monkeypatch.setattr(repository, "ensure_projects", lambda _connection, _agent, names: dict.fromkeys(names, uuid4()))
    with pytest.raises(Conflict, match="try again"):
        services.episodes.store("alice", new_episode("one", project="gone"))
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory") == 0
