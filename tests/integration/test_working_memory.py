"""Working memory: PostgreSQL first, Redis after the commit, and what is read is what is stored whatever Redis does."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from app.bootstrap import Services
from app.cache import keys
from app.cache.contexts import ContextCache
from app.config import Settings
from app.errors import Conflict, InvalidRequest, NotFound
from app.working import repository
from app.working.models import NewContext
from tests.factories.servers import TestServers
from tests.factories.statements import Sql


def context(step: int = 1, **fields: Any) -> NewContext:
    return NewContext(active_content={"step": step}, ttl_seconds=fields.pop("ttl_seconds", 600), **fields)


def step(services: Services, context_id: str = "c", agent_id: str = "alice") -> int:
    return int(services.working.get(agent_id, context_id).active_content["step"])


@pytest.fixture
def redis(database_settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(database_settings.cache_dsn) as client:
        yield client


class Counter:
    """Counts how often PostgreSQL was asked for a context."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        get = repository.get

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return get(*arguments)

        monkeypatch.setattr(repository, "get", counted)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


def test_write_stands_in_both_stores_with_the_same_bytes_and_time(services: Services, redis: Redis, sql: Sql, asked: Counter) -> None:
    view, is_new = services.working.put("alice", "c", context(session_id="s ñ", context_type="plan", priority="critical"))
    assert is_new
    value = redis.get(keys.working("alice", "c"))
    assert isinstance(value, bytes)
    assert (
        sql.one("SELECT cache_sha1 FROM nexus_memory.working_memory_contexts").tobytes()
        == hashlib.sha1(b"nexus:working:alice:c\n" + value).digest()
    )
    left = redis.pttl(keys.working("alice", "c"))
    assert view.expires_at is not None
    assert abs((view.expires_at - datetime.now(UTC)).total_seconds() * 1000 - left) < 500
    assert services.working.get("alice", "c") == view
    assert asked.count == 0, "it was read from PostgreSQL"


def test_replacement_is_read_at_once_and_keeps_its_beginning(services: Services) -> None:
    first, _ = services.working.put("alice", "c", context(1))
    second, is_new = services.working.put("alice", "c", context(2, priority="low"))
    assert not is_new
    assert (second.created_at, second.seq) == (first.created_at, first.seq)
    assert second.updated_at > first.updated_at
    assert services.working.get("alice", "c") == second


def test_creation_refuses_a_live_context_and_takes_the_place_of_an_expired_one(services: Services, sql: Sql) -> None:
    services.working.create("alice", "c", context(1))
    with pytest.raises(Conflict):
        services.working.create("alice", "c", context(2))
    assert step(services) == 1
    sql("UPDATE nexus_memory.working_memory_contexts SET expires_at = now() - interval '1 second'")
    later = services.working.create("alice", "c", context(3))
    assert later.created_at > datetime.now(UTC) - timedelta(seconds=10)
    assert step(services) == 3
    assert len(services.working.create("alice", None, context()).context_id) == 32


def test_expired_context_is_gone_from_both_stores(services: Services, redis: Redis) -> None:
    services.working.put("alice", "c", context(ttl_seconds=1))
    services.working.put("alice", "kept", context())
    threading.Event().wait(1.1)
    assert redis.get(keys.working("alice", "c")) is None
    with pytest.raises(NotFound):
        services.working.get("alice", "c")
    with pytest.raises(NotFound):
        services.working.delete("alice", "c")
    assert [view.context_id for view in services.working.list_page("alice", 10)[0]] == ["kept"]


def test_value_that_redis_kept_too_long_is_not_served(services: Services, redis: Redis) -> None:
    services.working.put("alice", "c", context(ttl_seconds=1))
    redis.persist(keys.working("alice", "c"))
    threading.Event().wait(1.1)
    with pytest.raises(NotFound):
        services.working.get("alice", "c")


def test_refresh_on_read_starts_the_time_again_in_both_stores(services: Services, redis: Redis, sql: Sql) -> None:
    before = services.working.put("alice", "c", context(ttl_seconds=100))[0].expires_at
    assert before is not None
    sql("UPDATE nexus_memory.working_memory_contexts SET expires_at = expires_at - interval '60 seconds'")
    redis.expire(keys.working("alice", "c"), 40)
    view = services.working.get("alice", "c", refresh=True)
    assert view.expires_at is not None and view.expires_at > before
    assert redis.ttl(keys.working("alice", "c")) > 90
    assert services.working.get("alice", "c") == view
    with pytest.raises(NotFound):
        services.working.get("alice", "none", refresh=True)


def test_flush_costs_one_read_from_postgresql(services: Services, servers: TestServers, redis: Redis, asked: Counter) -> None:
    services.working.put("alice", "c", context(7))
    servers.flush_redis()
    assert [step(services), step(services), step(services)] == [7, 7, 7]
    assert asked.count == 1
    assert 590 < redis.ttl(keys.working("alice", "c")) <= 600


@pytest.mark.parametrize(
    "value",
    [b"", b"junk", b"[]", b"{}", b'{"agent_id": "alice"}', b"\xff\xfe"],
)
def test_damaged_value_is_a_miss(value: bytes, services: Services, redis: Redis) -> None:
    services.working.put("alice", "c", context(3))
    redis.set(keys.working("alice", "c"), value)
    assert step(services) == 3


def test_value_of_another_agent_under_the_key_is_not_served(services: Services, redis: Redis) -> None:
    services.working.put("bob", "c", context(66))
    services.working.put("alice", "c", context(1))
    of_bob = redis.get(keys.working("bob", "c"))
    assert isinstance(of_bob, bytes)
    redis.set(keys.working("alice", "c"), of_bob)
    assert step(services) == 1


def test_row_of_plain_sql_that_never_ends_is_read_and_not_cached(services: Services, redis: Redis, sql: Sql) -> None:
    sql("INSERT INTO nexus_memory.working_memory_contexts (agent_id, context_id, active_content) VALUES ('alice', 'c', '{\"step\": 5}')")
    assert step(services) == 5
    assert services.working.get("alice", "c", refresh=True).expires_at is None
    assert redis.get(keys.working("alice", "c")) is None


def test_agents_do_not_see_each_other(services: Services) -> None:
    services.working.put("alice", "c", context(1))
    with pytest.raises(NotFound):
        services.working.get("bob", "c")
    with pytest.raises(NotFound):
        services.working.delete("bob", "c")
    services.working.put("bob", "c", context(2))
    assert (step(services), step(services, agent_id="bob")) == (1, 2)
    assert [view.agent_id for view in services.working.list_page("bob", 10)[0]] == ["bob"]


def test_list_is_by_priority_then_newest_and_pages_hold_each_once(services: Services) -> None:
    for number, priority in enumerate(("low", "critical", "normal", "high", "critical", "low", "normal")):
        services.working.put("alice", f"c{number}", context(number, priority=priority))
    everything = ["c4", "c1", "c3", "c6", "c2", "c5", "c0"]
    found: list[str] = []
    after = None
    while True:
        views, after = services.working.list_page("alice", 2, after=after)
        found.extend(view.context_id for view in views)
        if after is None:
            break
    assert found == everything
    assert [view.context_id for view in services.working.list_page("alice", 9, priority="low")[0]] == ["c5", "c0"]


def interleaved(services: Services, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """A writer commits; `meanwhile` happens; then the writer reaches Redis."""
    committed, released = threading.Event(), threading.Event()
    write = ContextCache.write

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(ContextCache, "write", write)
        committed.set()
        assert released.wait(10)
        write(*arguments)

    monkeypatch.setattr(ContextCache, "write", late)
    writer = threading.Thread(target=services.working.put, args=("alice", "c", context(1)))
    writer.start()
    assert committed.wait(10)
    meanwhile()
    released.set()
    writer.join()


def test_late_writer_does_not_put_an_overtaken_value_back(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    interleaved(services, monkeypatch, lambda: services.working.put("alice", "c", context(2)))
    assert step(services) == 2


def test_late_writer_does_not_put_a_deleted_value_back(services: Services, monkeypatch: pytest.MonkeyPatch, redis: Redis) -> None:
    interleaved(services, monkeypatch, lambda: services.working.delete("alice", "c"))
    assert redis.get(keys.working("alice", "c")) is None
    with pytest.raises(NotFound):
        services.working.get("alice", "c")


def test_mutant_without_the_generation_puts_both_back(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def unguarded(redis: Any, generation_key: str, generation: int, queue: Callable[[Any], None]) -> bool:
        with redis.pipeline() as pipeline:
            queue(pipeline)
            pipeline.execute()
        return True

    monkeypatch.setattr("app.cache.contexts._if_unchanged", unguarded)
    interleaved(services, monkeypatch, lambda: services.working.put("alice", "c", context(2)))
    assert step(services) == 1, "the guard is not what keeps an overtaken value out"
    interleaved(services, monkeypatch, lambda: services.working.delete("alice", "c"))
    assert step(services) == 1


def test_reader_that_loaded_before_a_deletion_does_not_refill(
    services: Services, monkeypatch: pytest.MonkeyPatch, redis: Redis, servers: TestServers
) -> None:
    services.working.put("alice", "c", context(1))
    servers.flush_redis()
    loaded, deleted = threading.Event(), threading.Event()
    get = repository.get

    def slow(*arguments: Any) -> Any:
        view = get(*arguments)
        monkeypatch.setattr(repository, "get", get)
        loaded.set()
        assert deleted.wait(10)
        return view

    monkeypatch.setattr(repository, "get", slow)
    reader = threading.Thread(target=services.working.get, args=("alice", "c"))
    reader.start()
    assert loaded.wait(10)
    services.working.delete("alice", "c")
    deleted.set()
    reader.join()
    assert redis.get(keys.working("alice", "c")) is None


def test_concurrent_writers_end_with_both_stores_equal(services: Services, redis: Redis, sql: Sql) -> None:
    def write(number: int) -> None:
        services.working.put("alice", f"c{number % 3}", context(number))
        if number % 10 == 9:
            services.working.delete("alice", f"c{number % 3}")

    def attempt(number: int) -> None:
        try:
            write(number)
        except NotFound:
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, range(400)))
    for number in range(3):
        value = redis.get(keys.working("alice", f"c{number}"))
        rows = sql("SELECT cache_sha1 FROM nexus_memory.working_memory_contexts WHERE context_id = %s", f"c{number}")
        if value is not None:
            assert isinstance(value, bytes)
            assert [bytes(row[0]) for row in rows] == [hashlib.sha1(f"nexus:working:alice:c{number}\n".encode() + value).digest()]


def test_value_that_postgresql_cannot_hold_is_refused(services: Services) -> None:
    with pytest.raises(InvalidRequest):
        services.working.put("alice", "c", NewContext({"n": "a\x00b"}, 60))
