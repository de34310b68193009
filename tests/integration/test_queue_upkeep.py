"""What keeps the queue in order: leases and the reaper, processes that died, work that was missed, ticks, pruning."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable

from app.bootstrap import Services
from app.config import Role
from app.db import Database
from app.queue import repository
from app.queue.workers import WorkerIdentity, this_process
from tests.factories.episodes import stored_row
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql
from tests.factories.workshop import Workshop, store


def expire(sql: Sql) -> None:
    sql("UPDATE memory_system.embeddings_queue SET lease_until = now() - interval '1 s' WHERE state = 'processing'")


def test_process_that_died_without_a_word_is_forgotten_by_the_next_of_its_host(workshop: Workshop, sql: Sql) -> None:
    """Else the claim window keeps room for it, and the advice counts on it, until it was silent for a minute."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    this = this_process("worker", 1)
    for worker_id, hostname, pid in (
        ("dead", this.hostname, dead.pid),
        ("alive", this.hostname, os.getppid()),
        ("elsewhere", "x", dead.pid),
    ):
        workshop.queue.beat(WorkerIdentity(worker_id, "worker", hostname, pid, 1))
    workshop.queue.join(this)
    assert {row[0] for row in sql("SELECT worker_id FROM memory_system.workers")} == {"alive", "elsewhere", this.worker_id}


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
        assert len(repository.reap(one, max_attempts=5, grace_seconds=0)) == 50
        assert repository.reap(two, max_attempts=5, grace_seconds=0) == {}


def test_rows_that_the_triggers_missed_are_found(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, 2)
    workshop.drain()
    sql(TRIGGERS_OFF)
    sql("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) SELECT 'alice', 'loaded ' || n FROM generate_series(1, 5) n")
    sql("UPDATE nexus_memory.zep_episodic_memory SET content = 'edited in silence' WHERE content = 'episode 0'")
    sql("UPDATE nexus_memory.zep_episodic_memory SET embedding = NULL, embedding_sha256 = NULL WHERE content = 'episode 1'")
    sql(TRIGGERS_ON)
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
