"""Rows done and rows dead are counted once each, whichever way they went, however many count at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask.testing import FlaskClient

from app.bootstrap import Services
from app.config import Role
from app.db import Database
from app.observability.metrics import PROCESSING_LATENCY, TIME_TO_SEARCHABLE, Distribution
from app.queue import repository, tallies
from app.queue.models import Finished
from app.semantic.models import NewSemanticMemory
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import edit, new_episode
from tests.factories.history import install, untallied
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop, store

END_LEASES = "UPDATE memory_system.embeddings_queue SET lease_until = now() - interval '1 s' WHERE state = 'processing'"
LAST_ATTEMPT = "UPDATE memory_system.embeddings_queue SET retry_count = 4 WHERE target_id = ANY (%s::uuid[])"


def counted(services: Services) -> tuple[dict[str, int], dict[str, int]]:
    """Return rows done by kind and dead by cause, without zeros."""
    found = services.queue_status.tallies()
    return {kind: rows for kind, rows in found.done.items() if rows}, {cause: rows for cause, rows in found.dead.items() if rows}


def test_nothing_happened_is_zero_for_every_kind_and_cause(services: Services) -> None:
    found = services.queue_status.tallies()
    assert dict(found.done) == {"episodic": 0, "semantic": 0}
    assert set(found.dead.values()) == {0} and len(found.dead) == 7
    assert found.processing["semantic"] == Distribution((0,) * 13, 0.0)
    assert found.searchable["episodic"] == Distribution((0,) * 19, 0.0)


def test_each_finish_counts_once_also_of_an_edit_a_copy_and_a_semantic_memory(services: Services, workshop: Workshop, sql: Sql) -> None:
    install(sql)
    first = store(services, 40)
    services.semantic.store("alice", NewSemanticMemory(concept="tide", definition="the sea moves"))
    workshop.drain()
    assert counted(services) == ({"episodic": 40, "semantic": 1}, {})
    edit(services.database, "alice", first[0], "another text")
    services.episodes.store("alice", new_episode("episode 7"))
    workshop.drain()
    assert counted(services) == ({"episodic": 42, "semantic": 1}, {})
    assert untallied(sql) == (0, 0)
    found = services.queue_status.tallies()
    assert sum(found.processing["episodic"].counts) == sum(found.searchable["episodic"].counts) == 42
    assert 0 < found.processing["episodic"].total < found.searchable["episodic"].total


def test_message_delivered_twice_counts_once(services: Services, workshop: Workshop) -> None:
    store(services, 3)
    (batch,) = workshop.claim()
    assert [workshop.process(batch).done for _ in range(2)] == [3, 0]
    assert counted(services) == ({"episodic": 3}, {})


def test_every_way_to_die_counts_by_its_cause(services: Services, workshop: Workshop, encoder: FakeEncoder, sql: Sql) -> None:
    install(sql)
    ids = store(services, 1)
    sql(LAST_ATTEMPT, list(map(str, ids)))

    def spoil(_: object) -> None:
        raise ValueError

    (batch,) = workshop.claim()
    encoder.before = lambda texts: spoil(texts) if "episode 0" in str(texts) else None
    assert workshop.process(batch).failed == 1
    assert counted(services) == ({}, {"encoder_error": 1})

    for error, cause in (("worker_lost: WorkerLostError", "worker_lost"), ("never heard of: X", "other"), ("", "lease_expired")):
        ids = store(services, 2)
        sql(LAST_ATTEMPT, list(map(str, ids)))
        (batch,) = workshop.claim()
        workshop.embedding._start(batch.claim)
        if error:
            assert workshop.queue.release_crashed(batch.claim, error) == 2
        else:
            sql(END_LEASES)
            assert workshop.queue.reap() == 2
        assert counted(services)[1][cause] == 2
    assert untallied(sql) == (0, 0)
    # Dead again counts again.
    sql("SELECT memory_system.replay_dead(NULL, NULL, now(), 1000)")
    sql("UPDATE memory_system.embeddings_queue SET retry_count = 4 WHERE state = 'pending'")
    for batch in workshop.claim():
        workshop.embedding._start(batch.claim)
    sql(END_LEASES)
    assert workshop.queue.reap() == 7
    assert counted(services)[1]["lease_expired"] == 9
    assert untallied(sql) == (0, 0)


def test_mutant_that_forgets_to_count_is_found(services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    install(sql)
    monkeypatch.setattr(tallies, "count_done", lambda *_: None)
    store(services, 2)
    workshop.drain()
    assert untallied(sql) == (2, 0)


def test_finish_that_is_rolled_back_counts_nothing(services: Services, workshop: Workshop, worker_database: Database) -> None:
    store(services, 2)
    (batch,) = workshop.claim()
    workshop.embedding._start(batch.claim)

    with worker_database.engine.connect() as connection:
        repository.mark_done(connection, batch.claim)
        connection.rollback()
    assert counted(services) == ({}, {})


def test_vector_of_a_migrations_target_is_processed_and_makes_nothing_searchable(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, 2)
    (batch,) = workshop.claim()
    workshop.embedding._start(batch.claim)
    sql("UPDATE memory_system.embedding_models SET is_active = false")
    with workshop.database.transaction() as connection:
        repository.mark_done(connection, batch.claim)
    found = services.queue_status.tallies()
    assert (sum(found.processing["episodic"].counts), sum(found.searchable["episodic"].counts)) == (2, 0)


def test_many_at_once_lose_nothing_wait_for_nobody_and_leave_few_rows(
    services: Services, login: Callable[[Role], Database], sql: Sql
) -> None:
    threads, rounds = 6, 50
    database = login("nexus_worker")
    together = threading.Barrier(threads)

    def add(number: int) -> None:
        together.wait()
        for _ in range(rounds):
            with database.transaction() as connection:
                tallies.count_done(connection, "episodic", [Finished(0.03, 0.2), Finished(400.0, None)])
                tallies.count_dead(connection, ["dead", "pending"], "worker_lost: X")

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(add, range(threads)))
    found = services.queue_status.tallies()
    assert found.done["episodic"] == 2 * threads * rounds
    assert found.dead["worker_lost"] == threads * rounds
    assert found.processing["episodic"].counts == (0, threads * rounds, *(0,) * 10, threads * rounds)
    assert found.processing["episodic"].total == pytest.approx(400.03 * threads * rounds)
    assert sum(found.searchable["episodic"].counts) == threads * rounds
    assert sql.one("SELECT count(*) FROM memory_system.done_tallies") <= threads
    assert sql.one("SELECT count(*) FROM memory_system.dead_tallies") <= threads


def test_tally_that_somebody_holds_holds_up_nobody(services: Services, worker_database: Database, sql: Sql) -> None:
    with worker_database.transaction() as first:
        tallies.count_done(first, "episodic", [Finished(0.1, 0.1)])
    with worker_database.transaction() as holder:
        tallies.count_done(holder, "episodic", [Finished(0.1, 0.1)])
        with worker_database.transaction() as second:
            second.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
            tallies.count_done(second, "episodic", [Finished(0.1, 0.1)])
    assert counted(services) == ({"episodic": 3}, {})
    assert sql.one("SELECT count(*) FROM memory_system.done_tallies") == 2


def test_bounds_of_buckets_are_inclusive_and_ascend() -> None:
    assert Distribution.of((1.0, 2.0), [0.0, 1.0, 1.1, 2.0, 9.0]) == Distribution((2, 2, 1), 13.1)
    for metric in (PROCESSING_LATENCY, TIME_TO_SEARCHABLE):
        assert list(metric.buckets) == sorted(set(metric.buckets))


def test_two_processes_of_the_api_say_the_same(client: FlaskClient, services: Services, workshop: Workshop) -> None:
    store(services, 5)
    workshop.drain()
    seen = [client.get("/metrics").get_data(as_text=True) for _ in range(2)]
    for text in seen:
        assert 'embeddings_processed_total{target_kind="episodic"} 5.0' in text
        assert 'embeddings_processed_total{target_kind="semantic"} 0.0' in text
        assert 'embeddings_dead_total{cause="lease_expired"} 0.0' in text
        assert 'embeddings_time_to_searchable_seconds_count{target_kind="episodic"} 5.0' in text
