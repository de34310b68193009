"""Reconciliation: every kind of drift is found, repaired once, and a second run finds nothing; agreement is not read."""

import hashlib
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from app.bootstrap import Services, build_reconciliation_service
from app.cache import keys
from app.config import Settings
from app.errors import Unavailable
from app.reconcile import repository
from app.reconcile.service import ReconciliationService
from app.working.models import NewContext
from tests.factories.episodes import new_episode
from tests.factories.servers import TestServers
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql
from tests.factories.workshop import Workshop


@pytest.fixture
def redis(database_settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(database_settings.cache_dsn) as client:
        yield client


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


def test_context_that_is_deleted_while_redis_is_scanned_is_no_orphan(
    services: Services, reconciler: ReconciliationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(services, 35)
    known = repository.known

    def delete_before(connection: Any, contexts: Any) -> Any:
        services.working.delete("agent-1", "c7")
        return known(connection, contexts)

    monkeypatch.setattr(repository, "known", delete_before)
    assert reconciler.run("working", dry_run=True).found == {}


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


def test_totals_of_all_runs_are_metrics(services: Services, reconciler: ReconciliationService, redis: Redis) -> None:
    fill(services, 5)
    for _ in range(2):
        redis.delete(key(1), key(2))
        reconciler.run("working", dry_run=True)
        reconciler.run("working")
    totals = services.stats.reconciliation()
    assert totals.found == totals.repaired == {("working", "missing"): 4}
    assert totals.last_finished.keys() == {"working"}


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
    sql(TRIGGERS_OFF)
    sql("UPDATE nexus_memory.working_memory_contexts SET active_content = '{\"forged\": 1}' WHERE context_id = 'c3'")
    sql(TRIGGERS_ON)
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
    sql(TRIGGERS_OFF)
    sql("UPDATE nexus_memory.working_memory_contexts SET seq = 9223372036854775807 WHERE context_id = 'c5'")
    sql("UPDATE nexus_memory.working_memory_contexts SET seq = -9223372036854775808 WHERE context_id = 'c6'")
    sql("UPDATE nexus_memory.zep_episodic_memory SET seq = seq * 1000000000000")
    sql(TRIGGERS_ON)
    told: list[tuple[int, int]] = []
    report = reconciler.run("working", tell=lambda *step: told.append(step))
    assert report.ranges_compared <= 4
    assert told[-1][0] == told[-1][1]
    assert reconciler.run("vectors").ranges_compared == 3
