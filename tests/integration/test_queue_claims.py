"""The queue before a worker starts: order, window, leases, the reaper, ticks."""

import threading
from collections.abc import Callable
from contextlib import closing
from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy import text

from app.bootstrap import Services
from app.config import Role, Settings
from app.db import Database
from app.queue import repository
from app.queue.dispatcher import Dispatcher
from app.queue.models import Batch
from app.queue.service import QueueService
from app.queue.workers import WorkerIdentity, this_process
from tests.factories.episodes import new_episode, stored_row
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


def store(services: Services, count: int, **fields: float) -> list[UUID]:
    receipts = services.episodes.store_many("alice", [new_episode(f"episode {n}", **fields) for n in range(count)])
    return [receipt.episode_id for receipt in receipts]


def claimed(batches: list[Batch]) -> list[UUID]:
    return [target_id for batch in batches for target_id in batch.target_ids]


def expire(sql: Sql) -> None:
    sql("UPDATE memory_system.embeddings_queue SET lease_until = now() - interval '1 s' WHERE state = 'processing'")


def test_urgent_rows_are_claimed_first_then_the_oldest(services: Services, workshop: Workshop, worker_database: Database) -> None:
    expected = {}
    for importance in (0.1, 0.5, 0.75, 0.95):  # Stored in the reverse of their urgency.
        for age in range(2):
            (episode_id,) = store(services, 1, importance_score=importance)
            expected[episode_id] = (-importance, age)
    workshop.announce()
    order: list[UUID] = []
    for _ in expected:
        with worker_database.transaction() as connection:
            rows = repository.claim(connection, uuid4(), most=1, rows_per_slot=64, lease_seconds=45, silence_seconds=60)
        order += [row.target_id for row in rows]
    assert order == sorted(expected, key=expected.__getitem__)


def test_low_rows_do_not_starve_when_nothing_more_urgent_is_due(services: Services, workshop: Workshop, sql: Sql) -> None:
    low = store(services, 3, importance_score=0.0)
    store(services, 3, importance_score=1.0)
    batches = workshop.claim()
    assert [batch.queue for batch in batches] == ["embed.hi", "embed.bulk"]
    assert set(low) == set(batches[1].target_ids)


def test_nobody_at_work_means_no_claim(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, 3)
    assert workshop.queue.claim() == []
    workshop.queue.beat(this_process("dispatcher"))
    assert workshop.queue.claim() == []
    workshop.announce()
    sql("UPDATE memory_system.workers SET heartbeat_at = now() - interval '61 s'")
    assert workshop.queue.claim() == []
    workshop.announce()
    assert len(claimed(workshop.queue.claim())) == 3


def test_window_holds_two_batches_for_each_live_slot(services: Services, workshop: Workshop, database_settings: Settings) -> None:
    store(services, 300)
    window = 2 * database_settings.batch_rows
    workshop.announce(slots=1)
    first = workshop.queue.claim()
    assert len(claimed(first)) == window
    assert workshop.queue.claim() == []
    workshop.process(first[0])
    assert len(claimed(workshop.queue.claim())) == len(first[0].target_ids)
    workshop.announce(slots=1, worker_id="worker@test:2")
    assert len(claimed(workshop.queue.claim())) == window
    workshop.queue.leave(WorkerIdentity("worker@test:2", "worker", "test", 2))
    assert workshop.queue.claim() == []
    assert workshop.queue.counts().processing == 2 * window


def test_one_claim_takes_at_most_claim_rows(services: Services, workshop: Workshop, database_settings: Settings) -> None:
    store(services, database_settings.claim_rows + 44)
    workshop.announce(slots=100)
    assert len(claimed(workshop.queue.claim())) == database_settings.claim_rows
    assert len(claimed(workshop.queue.claim())) == 44


def two_dispatchers(services: Services, workshop: Workshop, login: Callable[[Role], Database]) -> None:
    """Two claims run while neither has committed: together they must not exceed the window, nor share a row."""
    store(services, 200)
    workshop.announce(slots=1)
    arguments = {"most": 256, "rows_per_slot": 64, "lease_seconds": 45.0, "silence_seconds": 60.0}
    first, second = login("nexus_worker"), login("nexus_worker")
    with first.transaction() as one, second.transaction() as two:
        a = repository.claim(one, uuid4(), **arguments)  # type: ignore[arg-type]
        b = repository.claim(two, uuid4(), **arguments)  # type: ignore[arg-type]
    ids = [row.target_id for row in (*a, *b)]
    assert len(ids) == len(set(ids)), "two dispatchers took the same row"
    assert len(ids) == 64, "two dispatchers spent the same room"


def test_two_dispatchers_share_one_window(services: Services, workshop: Workshop, login: Callable[[Role], Database]) -> None:
    two_dispatchers(services, workshop, login)


def test_mutant_without_the_window_lock_overfills_the_window(
    services: Services, workshop: Workshop, login: Callable[[Role], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_TRY_WINDOW", text("SELECT true"))
    with pytest.raises(AssertionError, match="same room"):
        two_dispatchers(services, workshop, login)


def test_many_dispatchers_claim_each_row_once(services: Services, database_settings: Settings, login: Callable[[Role], Database]) -> None:
    ids = store(services, 600)
    queues = [QueueService(login("nexus_worker"), database_settings) for _ in range(4)]
    queues[0].beat(WorkerIdentity("w", "worker", "test", 1, 100))
    taken: list[UUID] = []
    gate = threading.Barrier(4)

    def run(queue: QueueService) -> None:
        gate.wait()
        for _ in range(40):
            taken.extend(claimed(queue.claim()))

    threads = [threading.Thread(target=run, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


def test_row_that_a_client_is_changing_is_passed_over(services: Services, workshop: Workshop, servers: TestServers, sql: Sql) -> None:
    held, free = store(services, 2)
    with closing(servers.superuser(sql.one("SELECT current_database()"))) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT 1 FROM memory_system.embeddings_queue WHERE target_id = %s FOR UPDATE", (str(held),))
        assert claimed(workshop.claim()) == [free]
    assert claimed(workshop.claim()) == [held]


def test_lease_of_unstarted_work_expires_without_a_charge(services: Services, workshop: Workshop, sql: Sql) -> None:
    (episode_id,) = store(services, 1)
    (batch,) = workshop.claim()
    assert workshop.queue.reap() == 0
    expire(sql)
    assert workshop.queue.reap() == 1
    row = stored_row(sql, episode_id)
    assert (row.state, row.retry_count, row.solo, row.claim_token, row.last_error) == ("pending", 0, False, None, None)
    assert row.due_in_seconds <= 0
    # The message turns up after all: it matches nothing.
    assert workshop.process(batch).lost == 1
    assert workshop.encoder.calls == []
    assert workshop.drain() == 1


def test_reaper_takes_a_long_queue_in_steps_and_knows_no_unblameable_row(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, 1000)
    store(services, 30)
    workshop.announce(slots=100)
    while workshop.queue.claim():
        pass
    expire(sql)
    assert workshop.queue.reap() == 1000
    assert workshop.queue.reap() == 30
    assert workshop.queue.reap() == 0


def test_two_reapers_take_each_row_once(services: Services, workshop: Workshop, login: Callable[[Role], Database], sql: Sql) -> None:
    store(services, 50)
    workshop.claim()
    expire(sql)
    first, second = login("nexus_worker"), login("nexus_worker")
    with first.transaction() as one, second.transaction() as two:
        assert len(repository.reap(one, max_attempts=5)) == 50
        assert repository.reap(two, max_attempts=5) == {}


def test_failing_broker_costs_a_lease_and_no_attempt(
    services: Services, workshop: Workshop, worker_database: Database, database_settings: Settings, sql: Sql
) -> None:
    (episode_id,) = store(services, 1)
    workshop.announce()
    waits: list[float] = []

    def publish(_: object) -> None:
        raise ConnectionError("broker is gone")

    dispatcher = Dispatcher(workshop.queue, publish, waits.append, database_settings)
    assert dispatcher.run_once()
    assert stored_row(sql, episode_id).state == "processing"
    assert not dispatcher.run_once()
    expire(sql)
    workshop.queue.reap()
    assert stored_row(sql, episode_id).retry_count == 0
    assert workshop.drain() == 1


def test_dispatcher_runs_publishes_and_leaves(services: Services, workshop: Workshop, database_settings: Settings, sql: Sql) -> None:
    ids = store(services, 40)
    workshop.announce()
    stop, published = threading.Event(), list[Batch]()

    def wait(_: float) -> None:
        stop.set()

    Dispatcher(workshop.queue, published.extend, wait, database_settings).run(stop)
    assert sorted(claimed(published)) == sorted(ids)
    assert sql("SELECT kind FROM memory_system.workers") == [("worker",)]


def test_rows_that_the_triggers_missed_are_found(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, 2)
    workshop.drain()
    sql("SET session_replication_role = replica")
    sql("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) SELECT 'alice', 'loaded ' || n FROM generate_series(1, 5) n")
    sql("UPDATE nexus_memory.zep_episodic_memory SET content = 'edited in silence' WHERE content = 'episode 0'")
    sql("UPDATE nexus_memory.zep_episodic_memory SET embedding = NULL, embedding_sha256 = NULL WHERE content = 'episode 1'")
    sql("SET session_replication_role = origin")
    assert workshop.drain() == 0
    assert workshop.queue.enqueue_missing() == 7
    assert workshop.queue.enqueue_missing() == 0
    assert workshop.drain() == 7
    assert workshop.queue.enqueue_missing() == 0
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory WHERE embedding_sha256 IS DISTINCT FROM input_sha256") == 0


def test_dead_row_is_not_brought_back_by_the_search_for_missing_work(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, 1)
    sql("UPDATE memory_system.embeddings_queue SET state = 'dead', retry_count = 5, last_error = 'x'")
    assert workshop.queue.enqueue_missing() == 0


def test_tick_begins_once_however_many_ask(workshop: Workshop) -> None:
    begun: list[bool] = []
    threads = [threading.Thread(target=lambda: begun.append(workshop.queue.begin_tick("upkeep.test", 3600))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun) == [False] * 7 + [True]
    assert workshop.queue.begin_tick("upkeep.other", 3600)


def test_prune_forgets_only_what_is_old(workshop: Workshop, sql: Sql) -> None:
    workshop.announce()
    workshop.announce(worker_id="gone")
    workshop.queue.begin_tick("upkeep.test", 60)
    sql("UPDATE memory_system.workers SET heartbeat_at = now() - interval '2 days' WHERE worker_id = 'gone'")
    sql("INSERT INTO memory_system.beat_ticks (task, slot, ran_at) VALUES ('old', now() - interval '3 days', now() - interval '3 days')")
    assert workshop.queue.prune() == {"beat_ticks": 1, "workers": 1}
    assert workshop.queue.prune() == {"beat_ticks": 0, "workers": 0}


def test_states_and_claims_are_guarded_by_the_database(services: Services, sql: Sql) -> None:
    store(services, 1)
    for change in ("state = 'lost'", "claim_token = gen_random_uuid()", "state = 'processing'", "priority = 9", "target_kind = 'other'"):
        with pytest.raises(psycopg2.errors.CheckViolation):
            sql(f"UPDATE memory_system.embeddings_queue SET {change}")
