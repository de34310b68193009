"""The dispatcher and its broker: what a failing or unread broker costs, and that it costs no attempt."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from app.bootstrap import Services
from app.config import Settings
from app.queue import repository
from app.queue.dispatcher import Dispatcher
from app.queue.models import Batch
from tests.factories.episodes import stored_row
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop, claimed, store


@dataclass
class FakeBroker:
    """Takes batches, or says what is given to it; nobody reads what it holds.

    Attributes:
        publish: What happens with batches.
        held: Messages that lie unread.
    """

    publish: Callable[[Sequence[Batch]], None]
    held: int = 0

    def unread(self) -> int:
        return self.held


def test_failing_broker_costs_neither_a_lease_nor_an_attempt(
    services: Services, workshop: Workshop, database_settings: Settings, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    (episode_id,) = store(services, 1)
    workshop.announce()
    waits: list[float] = []
    sent: list[Batch] = []

    def publish(batches: Sequence[Batch]) -> None:
        sent.extend(batches)
        raise ConnectionError("broker is gone")

    dispatcher = Dispatcher(workshop.queue, FakeBroker(publish), lambda _: None, database_settings)
    monkeypatch.setattr(dispatcher._stop, "wait", waits.append)
    assert dispatcher.run_once()
    row = stored_row(sql, episode_id)
    assert (row.state, row.retry_count, row.claim_token) == ("pending", 0, None)
    assert dispatcher.run_once()
    assert waits == [database_settings.poll_seconds, 2 * database_settings.poll_seconds]
    # The first message was on its way after all: it matches nothing.
    assert workshop.process(sent[0]).lost == 1
    assert workshop.drain() == 1
    assert stored_row(sql, episode_id).retry_count == 1


def test_unreachable_broker_is_found_out_before_anything_is_claimed(
    services: Services, workshop: Workshop, database_settings: Settings, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    (episode_id,) = store(services, 1)
    workshop.announce()
    published: list[Batch] = []
    broker = FakeBroker(published.extend)
    dispatcher = Dispatcher(workshop.queue, broker, lambda _: None, database_settings)
    waits: list[float] = []
    monkeypatch.setattr(dispatcher._stop, "wait", waits.append)

    def fail() -> int:
        raise ConnectionError("broker is gone")

    with monkeypatch.context() as patched:
        patched.setattr(broker, "unread", fail)
        assert dispatcher.run_once()
        assert dispatcher.run_once()
    assert waits == [database_settings.poll_seconds, 2 * database_settings.poll_seconds]
    assert published == []
    assert stored_row(sql, episode_id).state == "pending"
    assert dispatcher.run_once()
    assert claimed(published) == [episode_id]


def nobody_reads(services: Services, workshop: Workshop, database_settings: Settings, sql: Sql) -> None:
    """A worker says that it lives and reads nothing: lease after lease ends, and what lies in the broker must stay bounded."""
    ids = store(services, 200)
    sql("UPDATE memory_system.embeddings_queue SET solo = true")
    workshop.announce(slots=1)
    window = 2 * database_settings.batch_rows
    broker = FakeBroker(lambda _: None)
    dispatcher = Dispatcher(workshop.queue, broker, lambda _: None, database_settings)

    def publish(batches: Sequence[Batch]) -> None:
        broker.held += len(batches)

    broker.publish = publish
    for _ in range(5):
        while dispatcher.run_once():
            assert broker.held <= window, f"{broker.held} messages, and the window is {window} rows"
        sql("UPDATE memory_system.embeddings_queue SET lease_until = now() - interval '1 s' WHERE state = 'processing'")
        workshop.queue.reap()
    assert broker.held == window
    # The worker reads again: what it finds is spent, and makes room for what is not.
    broker.held = 0
    assert dispatcher.run_once()
    assert {stored_row(sql, each).retry_count for each in ids} == {0}


def test_messages_do_not_pile_up_though_leases_end_unread(
    services: Services, workshop: Workshop, database_settings: Settings, sql: Sql
) -> None:
    nobody_reads(services, workshop, database_settings, sql)


def test_mutant_that_does_not_count_what_lies_unread_piles_up(
    services: Services, workshop: Workshop, database_settings: Settings, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_CLAIM", text(str(repository._CLAIM).replace(":unread > 0", "false")))
    with pytest.raises(AssertionError, match="messages, and the window is"):
        nobody_reads(services, workshop, database_settings, sql)


def test_dispatcher_runs_publishes_and_leaves(services: Services, workshop: Workshop, database_settings: Settings, sql: Sql) -> None:
    ids = store(services, 40)
    workshop.announce()
    stop, published = threading.Event(), list[Batch]()

    def wait(_: float) -> None:
        stop.set()

    Dispatcher(workshop.queue, FakeBroker(published.extend), wait, database_settings).run(stop)
    assert sorted(claimed(published)) == sorted(ids)
    assert sql("SELECT kind FROM memory_system.workers") == [("worker",)]
