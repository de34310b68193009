"""Reconciliation: every kind of drift is found, repaired once, and a second run finds nothing; agreement is not read."""

import hashlib
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from app.bootstrap import Services, build_reconciliation_service
from app.cache import keys
from app.config import Settings
from app.errors import Unavailable
from app.reconcile import repository, service
from app.reconcile.service import ReconciliationService, Report
from app.semantic.models import NewSemanticMemory
from app.working.models import NewContext
from tests.factories.episodes import new_episode, vector_text
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


@pytest.fixture
def redis(database_settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(database_settings.cache_dsn) as client:
        yield client


@pytest.fixture
def reconciler(database_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReconciliationService]:
    """A reconciler whose ranges have ten rows."""
    monkeypatch.setattr(service, "RANGE_SIZE", 10)
    built = build_reconciliation_service(database_settings)
    yield built
    built._database.close()


def fill(services: Services, count: int) -> None:
    for number in range(count):
        services.working.put(f"agent-{number % 3}", f"c{number}", NewContext({"n": number, "ñ": "🦤"}, 600))


def key(number: int) -> str:
    return keys.working(f"agent-{number % 3}", f"c{number}")


def assert_agreement(redis: Redis, sql: Sql) -> None:
    """Compare every row with its key, and every key with its row, without any code of the reconciler."""
    rows = sql("SELECT agent_id, context_id, cache_sha1 FROM nexus_memory.working_memory_contexts WHERE expires_at > now()")
    held = set(redis.scan_iter("nexus:working:*"))
    assert held == {keys.working(agent_id, context_id).encode() for agent_id, context_id, _ in rows}
    for agent_id, context_id, expected in rows:
        value: Any = redis.get(keys.working(agent_id, context_id))
        assert hashlib.sha1(keys.working(agent_id, context_id).encode() + b"\n" + value).digest() == bytes(expected)
        assert redis.pttl(keys.working(agent_id, context_id)) > 0


def test_agreement_is_not_read(services: Services, reconciler: ReconciliationService, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(services, 35)
    monkeypatch.setattr(repository, "expected", lambda *_: pytest.fail("a range that agrees was read"))
    monkeypatch.setattr(repository, "views", lambda *_: pytest.fail("a range that agrees was read"))
    report = reconciler.run("working")
    assert (report.ranges_compared, report.ranges_different, report.found, report.repaired) == (4, 0, {}, {})


DAMAGES: dict[str, Callable[[Redis, Sql], object]] = {
    "missing": lambda redis, _: redis.delete(key(7)),
    "stale": lambda redis, _: redis.set(key(7), b"other bytes", keepttl=True),
    "stale of another type": lambda redis, _: (redis.delete(key(7)), redis.lpush(key(7), "x")),
    "wrong_ttl": lambda redis, _: redis.pexpire(key(7), 500_000),
    "wrong_ttl without end": lambda redis, _: redis.persist(key(7)),
    "orphan": lambda redis, _: redis.set("nexus:working:nobody:none", b"x"),
    "orphan of an odd name": lambda redis, _: redis.set(b"nexus:working:a:\xff\xfe", b"x"),
    "orphan with too many parts": lambda redis, _: redis.set("nexus:working:a:b:c", b"x"),
    "unhashed": lambda _, sql: sql(
        "UPDATE nexus_memory.working_memory_contexts SET active_content = '{\"by\": \"hand\"}' WHERE context_id = 'c7'"
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_kind_of_drift_is_found_and_repaired_once(
    name: str, services: Services, reconciler: ReconciliationService, redis: Redis, sql: Sql
) -> None:
    fill(services, 25)
    DAMAGES[name](redis, sql)
    kind = name.split(maxsplit=1)[0]
    found = reconciler.run("working", dry_run=True)
    assert (found.found, found.repaired) == ({kind: 1}, {}), "a dry run finds, and repairs nothing"
    repaired = reconciler.run("working")
    assert (repaired.found, repaired.repaired) == ({kind: 1}, {kind: 1})
    assert repaired.ranges_different == (0 if kind == "orphan" else 1)
    assert reconciler.run("working").found == {}
    assert_agreement(redis, sql)
    assert services.working.get("agent-1", "c7").active_content == ({"by": "hand"} if kind == "unhashed" else {"n": 7, "ñ": "🦤"})


def test_row_of_plain_sql_gets_its_key(services: Services, reconciler: ReconciliationService, redis: Redis, sql: Sql) -> None:
    sql(
        "INSERT INTO nexus_memory.working_memory_contexts (agent_id, context_id, active_content, ttl_seconds, expires_at)"
        " VALUES ('alice', 'c', '{\"n\": 1}', 60, now() + interval '60 seconds')"
    )
    assert reconciler.run("working").repaired == {"unhashed": 1}
    assert_agreement(redis, sql)
    assert reconciler.run("working").found == {}


def test_flushed_redis_is_filled_whole(
    services: Services, reconciler: ReconciliationService, redis: Redis, sql: Sql, servers: TestServers
) -> None:
    fill(services, 25)
    servers.flush_redis()
    assert reconciler.run("working").repaired == {"missing": 25}
    assert_agreement(redis, sql)


def test_expired_rows_are_swept_and_rows_about_to_end_left_alone(
    services: Services, reconciler: ReconciliationService, redis: Redis, sql: Sql
) -> None:
    fill(services, 5)
    sql("UPDATE nexus_memory.working_memory_contexts SET expires_at = now() - interval '2 minutes' WHERE context_id = 'c0'")
    sql("UPDATE nexus_memory.working_memory_contexts SET expires_at = now() + interval '3 seconds' WHERE context_id = 'c1'")
    redis.delete(key(0), key(1))
    report = reconciler.run("working")
    assert (report.found, report.repaired) == ({}, {"expired": 1})
    assert sql.one("SELECT count(*) FROM nexus_memory.working_memory_contexts") == 4


def test_random_damage_is_repaired_whole(services: Services, reconciler: ReconciliationService, redis: Redis, sql: Sql) -> None:
    fill(services, 60)
    chance = random.Random(3)
    damages: list[Callable[[int], object]] = [
        lambda n: redis.delete(key(n)),
        lambda n: redis.set(key(n), chance.randbytes(20)),
        lambda n: redis.pexpire(key(n), 100_000),
        lambda n: sql("UPDATE nexus_memory.working_memory_contexts SET priority = 'low' WHERE context_id = %s", f"c{n}"),
    ]
    for number in chance.sample(range(60), 20):
        chance.choice(damages)(number)
    for number in range(5):
        redis.set(f"nexus:working:ghost:{number}", b"x")
    report = reconciler.run("working")
    assert sum(report.found.values()) == 25
    assert report.found == report.repaired
    assert reconciler.run("working").found == {}
    assert_agreement(redis, sql)


def test_reconciliation_beside_writers_finds_nothing_and_spoils_nothing(
    services: Services, reconciler: ReconciliationService, redis: Redis, sql: Sql
) -> None:
    fill(services, 30)

    def write(number: int) -> None:
        services.working.put(f"agent-{number % 3}", f"c{number % 30}", NewContext({"n": number}, 600))

    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(write, number) for number in range(600)]
        while not all(future.done() for future in writes):
            reconciler.run("working")
    reconciler.run("working")
    assert_agreement(redis, sql)


def test_two_runs_at_once_do_no_harm(
    services: Services, reconciler: ReconciliationService, redis: Redis, sql: Sql, servers: TestServers
) -> None:
    fill(services, 40)
    servers.flush_redis()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: reconciler.run("working"), range(2)))
    assert_agreement(redis, sql)
    assert reconciler.run("working").found == {}


def test_redis_that_goes_away_is_recorded_and_the_next_run_goes_on(
    services: Services, database_settings: Settings, reconciler: ReconciliationService, redis: Redis, sql: Sql
) -> None:
    fill(services, 12)
    redis.delete(key(3))
    away = build_reconciliation_service(database_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    with pytest.raises(Unavailable):
        away.run("working")
    away._database.close()
    (run,) = reconciler.runs(10)
    assert run.error == "redis: ConnectionError"
    assert run.finished_at is not None
    assert reconciler.run("working").repaired == {"missing": 1}
    assert [one.error for one in reconciler.runs(10)] == [None, "redis: ConnectionError"]


def test_progress_is_told_for_each_range(services: Services, reconciler: ReconciliationService) -> None:
    fill(services, 25)
    told: list[tuple[int, int]] = []
    reconciler.run("working", tell=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def embedded(services: Services, workshop: Workshop, count: int) -> list[UUID]:
    receipts = services.episodes.store_many("alice", [new_episode(f"text {number}") for number in range(count)])
    workshop.drain()
    return [receipt.episode_id for receipt in receipts]


_NO_TRIGGERS = "SET session_replication_role = replica"
_CHUNK = "nexus_memory.episode_chunks"
VECTOR_DAMAGES: dict[str, str] = {
    "missing": f"DELETE FROM {_CHUNK} WHERE episode_id = %s",
    "stale": f"UPDATE {_CHUNK} SET input_sha256 = sha256('other') WHERE episode_id = %s",
    "torn": "UPDATE nexus_memory.zep_episodic_memory SET embedding_sha256 = NULL WHERE episode_id = %s",
}


@pytest.mark.parametrize("name", VECTOR_DAMAGES)
def test_vector_that_is_not_of_its_episode_is_made_anew(
    name: str, services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql
) -> None:
    ids = embedded(services, workshop, 25)
    assert reconciler.run("vectors") == Report("vectors", dry_run=False, ranges_compared=3)
    sql(_NO_TRIGGERS)
    sql(VECTOR_DAMAGES[name], str(ids[12]))
    sql("SET session_replication_role = origin")
    assert reconciler.run("vectors", dry_run=True).found == {name: 1}
    report = reconciler.run("vectors")
    assert (report.ranges_different, report.found, report.repaired) == (1, {name: 1}, {name: 1})
    assert reconciler.run("vectors").found == {}, "what is enqueued is no drift"
    assert workshop.drain() == 1
    assert vector_text(sql, ids[12]) == "present"
    assert services.integrity.identity().drift == 0


def test_episodes_loaded_without_triggers_are_enqueued(
    services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql
) -> None:
    embedded(services, workshop, 3)
    sql(_NO_TRIGGERS)
    sql("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) SELECT 'alice', 'loaded ' || i FROM generate_series(1, 15) i")
    sql("SET session_replication_role = origin")
    assert reconciler.run("vectors").repaired == {"missing": 15}
    assert workshop.drain() == 15


def test_swapped_vectors_are_found_by_a_deep_run(
    services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql
) -> None:
    ids = embedded(services, workshop, 12)
    sql(
        f"UPDATE {_CHUNK} c SET embedding = o.embedding FROM {_CHUNK} o"
        " WHERE (c.episode_id, o.episode_id) IN ((%s, %s), (%s, %s))",
        *map(str, (ids[2], ids[5], ids[5], ids[2])),
    )  # fmt: skip
    assert reconciler.run("vectors").found == {}
    assert reconciler.run("vectors", deep=True).repaired == {"altered": 2}
    workshop.drain()
    assert reconciler.run("vectors", deep=True).found == {}
    assert {vector_text(sql, episode_id) for episode_id in ids} == {"present"}


def test_pending_and_dead_work_is_no_drift(services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql) -> None:
    services.episodes.store_many("alice", [new_episode(f"n{number}") for number in range(4)])
    some = "SELECT target_id FROM memory_system.embeddings_queue LIMIT 2"
    sql(f"UPDATE memory_system.embeddings_queue SET state = 'dead', retry_count = 5 WHERE target_id IN ({some})")
    assert reconciler.run("vectors").found == {}
    assert sql.one("SELECT count(*) FROM memory_system.embeddings_queue WHERE state = 'dead'") == 2


def test_totals_of_all_runs_are_metrics(services: Services, reconciler: ReconciliationService, redis: Redis) -> None:
    fill(services, 5)
    for _ in range(2):
        redis.delete(key(1), key(2))
        reconciler.run("working", dry_run=True)
        reconciler.run("working")
    totals = services.stats.reconciliation()
    assert totals.found == totals.repaired == {("working", "missing"): 4}
    assert totals.last_finished.keys() == {"working"}


_SEMANTIC = "nexus_memory.semantic_vectors"
SEMANTIC_DAMAGES: dict[str, str] = {
    "missing": f"DELETE FROM {_SEMANTIC} WHERE memory_id = %s",
    "stale": f"UPDATE {_SEMANTIC} SET input_sha256 = sha256('other') WHERE memory_id = %s",
    "torn": "UPDATE nexus_memory.semantic_memories SET embedding_sha256 = NULL WHERE memory_id = %s",
    "altered": f"UPDATE {_SEMANTIC} SET embedding = (SELECT array_agg(0.05 * n)::real[]::public.vector FROM generate_series(1, 384) n)"
    " WHERE memory_id = %s",
}


@pytest.mark.parametrize("name", SEMANTIC_DAMAGES)
def test_vector_that_is_not_of_its_semantic_memory_is_made_anew(
    name: str, services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql
) -> None:
    made = [services.semantic.store("alice", NewSemanticMemory(f"concept {n}", f"definition {n}")) for n in range(25)]
    workshop.drain()
    assert reconciler.run("vectors", deep=True).found == {}
    sql(_NO_TRIGGERS)
    sql(SEMANTIC_DAMAGES[name], str(made[12].memory_id))
    sql("SET session_replication_role = origin")
    assert reconciler.run("vectors", dry_run=True, deep=True).named == [(name, f"semantic memory {made[12].memory_id}")]
    report = reconciler.run("vectors", deep=True)
    assert (report.ranges_different, report.found, report.repaired) == (1, {name: 1}, {name: 1})
    assert reconciler.run("vectors", deep=True).found == {}, "what is enqueued is no drift"
    assert workshop.drain() == 1
    assert reconciler.run("vectors", deep=True).found == {}
    assert sql.one("SELECT drift FROM memory_system.semantic_identity()") == 0


def test_semantic_memories_loaded_without_triggers_are_enqueued(services: Services, workshop: Workshop, sql: Sql) -> None:
    sql(_NO_TRIGGERS)
    columns, rows = "(agent_id, concept, definition)", "SELECT 'alice', 'c' || i, 'd' FROM generate_series(1, 15) i"
    sql(f"INSERT INTO nexus_memory.semantic_memories {columns} {rows}")
    sql("SET session_replication_role = origin")
    assert workshop.queue.enqueue_missing() == 15
    assert workshop.drain() == 15
    assert workshop.queue.enqueue_missing() == 0


def test_values_that_changed_places_are_found(services: Services, reconciler: ReconciliationService, redis: Redis, sql: Sql) -> None:
    fill(services, 12)
    first, second = redis.get(key(3)), redis.get(key(7))
    assert isinstance(first, bytes) and isinstance(second, bytes)
    redis.set(key(3), second, keepttl=True)
    redis.set(key(7), first, keepttl=True)
    report = reconciler.run("working")
    assert (report.found, report.repaired) == ({"stale": 2}, {"stale": 2})
    assert_agreement(redis, sql)


def test_row_changed_without_its_trigger_is_found_by_the_deep_run(
    services: Services, reconciler: ReconciliationService, redis: Redis, sql: Sql
) -> None:
    fill(services, 12)
    sql("SET session_replication_role = replica")
    sql("UPDATE nexus_memory.working_memory_contexts SET active_content = '{\"forged\": 1}' WHERE context_id = 'c3'")
    sql("SET session_replication_role = origin")
    assert not reconciler.run("working").found
    report = reconciler.run("working", deep=True)
    assert (report.found, report.repaired, report.named) == ({"stale": 1}, {"stale": 1}, [("stale", key(3))])
    assert not reconciler.run("working", deep=True).found
    assert_agreement(redis, sql)


def test_numbers_that_nothing_has_cost_nothing(services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql) -> None:
    fill(services, 12)
    services.episodes.store_many("alice", [new_episode(f"text {n}") for n in range(3)])
    workshop.drain()
    for table in ("working_memory_contexts", "zep_episodic_memory"):
        sql(f"ALTER TABLE nexus_memory.{table} ALTER COLUMN seq SET GENERATED BY DEFAULT")
    sql("SET session_replication_role = replica")
    sql("UPDATE nexus_memory.working_memory_contexts SET seq = 9223372036854775807 WHERE context_id = 'c5'")
    sql("UPDATE nexus_memory.working_memory_contexts SET seq = -9223372036854775808 WHERE context_id = 'c6'")
    sql("UPDATE nexus_memory.zep_episodic_memory SET seq = seq * 1000000000000")
    sql("SET session_replication_role = origin")
    told: list[tuple[int, int]] = []
    report = reconciler.run("working", tell=lambda *step: told.append(step))
    assert report.ranges_compared <= 4
    assert told[-1][0] == told[-1][1]
    assert reconciler.run("vectors").ranges_compared == 3


def test_semantic_vector_put_in_by_hand_is_found(
    services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql
) -> None:
    for concept in ("kettle", "bread"):
        services.semantic.store("alice", NewSemanticMemory(concept, f"what {concept} is"))
    workshop.drain()
    assert not reconciler.run("vectors", deep=True).found
    other = "(SELECT o.embedding FROM nexus_memory.semantic_vectors o WHERE o.memory_id <> v.memory_id)"
    sql(f"UPDATE nexus_memory.semantic_vectors v SET embedding = {other}, vector_sha256 = sha256(public.vector_send({other}))")
    assert reconciler.run("vectors", deep=True).repaired == {"altered": 2}
    workshop.drain()
    assert not reconciler.run("vectors", deep=True).found
