"""The cache of recent episodes: right or absent, never wrong; and PostgreSQL answers whatever becomes of Redis."""

import threading
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from prometheus_client import REGISTRY
from redis import Redis

from app.bootstrap import Services, build_services
from app.cache import keys
from app.cache.lists import ListCache
from app.config import Settings
from app.episodes import repository as episode_repository
from app.observability.metrics import CacheOutcome
from app.redis_client import BestEffortRedis
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import new_episode
from tests.factories.servers import TestServers
from tests.factories.workshop import Workshop


class Counter:
    """Counts how often PostgreSQL was asked for recent episodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        list_page = episode_repository.list_page

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return list_page(*arguments)

        monkeypatch.setattr(episode_repository, "list_page", counted)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


@pytest.fixture
def redis(database_settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(database_settings.cache_dsn) as client:
        yield client


def contents(services: Services, agent_id: str = "alice") -> list[str]:
    return [view.content for view in services.episodes.recent(agent_id, 10)]


def test_second_read_comes_from_redis_and_is_equal(services: Services, asked: Counter, redis: Redis) -> None:
    services.episodes.store("alice", new_episode("ñ 🎉", metadata={"a": [1, None]}, tags=("x",), actor="b", project="p"))
    first = services.episodes.recent("alice", 10)
    assert services.episodes.recent("alice", 10) == first
    assert asked.count == 1
    (key,) = redis.scan_iter("nexus:recent:*")
    assert 0 < redis.ttl(key) <= 60


def test_each_question_has_its_own_entry(services: Services, asked: Counter) -> None:
    services.episodes.store("alice", new_episode(session_id="s", tags=("a", "b")))
    questions: list[Any] = [(10,), (11,), (10, "s"), (10, None, ("a",)), (10, None, ("a", "b")), (10, "('a',)"), (10, "s", ("a",))]
    for arguments in questions:
        services.episodes.recent("alice", *arguments)
    assert asked.count == len(questions)
    # The order of the tags asks nothing new.
    services.episodes.recent("alice", 10, None, ("b", "a"))
    assert asked.count == len(questions)


def test_write_is_seen_by_the_next_read(services: Services) -> None:
    services.episodes.store("alice", new_episode("one"))
    assert contents(services) == ["one"]
    services.episodes.store("alice", new_episode("two"))
    assert contents(services) == ["two", "one"]


def test_write_of_one_agent_leaves_the_others_entries(services: Services, asked: Counter) -> None:
    for agent in ("alice", "bob"):
        services.episodes.store(agent, new_episode(agent))
        services.episodes.recent(agent, 10)
    services.episodes.store("alice", new_episode("more"))
    assert contents(services, "bob") == ["bob"]
    assert asked.count == 2


def test_replay_changes_nothing_and_voids_nothing(services: Services, asked: Counter) -> None:
    episode = new_episode("one", idempotency_key="k")
    services.episodes.store("alice", episode)
    contents(services)
    services.episodes.store("alice", episode)
    contents(services)
    assert asked.count == 1


def test_finished_embedding_is_seen_by_the_next_read(services: Services, workshop: Workshop) -> None:
    services.episodes.store("alice", new_episode())
    assert [view.embedding_state for view in services.episodes.recent("alice", 10)] == ["pending"]
    workshop.drain()
    assert [view.embedding_state for view in services.episodes.recent("alice", 10)] == ["done"]


def test_flushed_redis_is_filled_again(services: Services, servers: TestServers, asked: Counter, redis: Redis) -> None:
    services.episodes.store("alice", new_episode("one"))
    contents(services)
    servers.flush_redis()
    assert contents(services) == ["one"]
    assert contents(services) == ["one"]
    assert asked.count == 2
    assert redis.dbsize() == 2  # The generation and the list.


def test_generation_that_was_lost_does_not_bring_an_old_list_back(services: Services, redis: Redis) -> None:
    services.episodes.store("alice", new_episode("one"))
    contents(services)
    services.episodes.store("alice", new_episode("two"))
    redis.delete(keys.generation("alice"))
    assert contents(services) == ["two", "one"]


@pytest.fixture
def without_redis(database_settings: Settings, encoder: FakeEncoder) -> Iterator[Services]:
    """Services whose Redis does not answer."""
    built = build_services(database_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}), load=lambda _: encoder)
    yield built
    built.close()


def test_redis_that_is_down_costs_nothing_but_the_cache(without_redis: Services, asked: Counter) -> None:
    for number in range(20):
        without_redis.episodes.store("alice", new_episode(f"{number}"))
        assert contents(without_redis)[0] == f"{number}"
    assert asked.count == 20
    report = without_redis.health.report()
    assert report.components["redis"]["status"] == "degraded"
    assert report.components["postgresql"]["status"] == "healthy"


def test_wrong_password_costs_nothing_but_the_cache(database_settings: Settings, encoder: FakeEncoder, asked: Counter) -> None:
    host = database_settings.redis_url.removeprefix("redis://")
    wrong = database_settings.model_copy(update={"redis_url": f"redis://nexus_cache:wrong@{host}"})
    built = build_services(wrong, load=lambda _: encoder)
    built.episodes.store("alice", new_episode("one"))
    assert contents(built) == ["one"]
    built.close()


@pytest.mark.parametrize(
    "damage", [b"not json", b"", (b'"content"', b'"body"'), (b'"seq"', b'"seq":1,"newer"'), (b'"created_at":"', b'"created_at":"x')]
)
def test_entry_that_is_damaged_or_of_another_release_is_a_miss(
    damage: bytes | tuple[bytes, bytes], services: Services, redis: Redis
) -> None:
    services.episodes.store("alice", new_episode("one"))
    contents(services)
    (key,) = redis.scan_iter("nexus:recent:*")
    entry: Any = redis.get(key)
    redis.set(key, damage if isinstance(damage, bytes) else entry.replace(*damage))
    assert contents(services) == ["one"]


def refill_after_delete(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader loads the list; the episode is deleted; then the reader stores what it loaded."""
    secret = services.episodes.store("alice", new_episode("to be forgotten")).episode_id
    loaded, deleted = threading.Event(), threading.Event()
    list_page = episode_repository.list_page

    def slow_list(*arguments: Any) -> Any:
        views = list_page(*arguments)
        monkeypatch.setattr(episode_repository, "list_page", list_page)
        loaded.set()
        assert deleted.wait(10)
        return views

    monkeypatch.setattr(episode_repository, "list_page", slow_list)
    reader = threading.Thread(target=contents, args=(services,))
    reader.start()
    assert loaded.wait(10)
    services.episodes.delete("alice", secret)
    deleted.set()
    reader.join()
    assert contents(services) == [], "a deleted episode came back"


def test_refill_cannot_bring_a_deleted_episode_back(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    refill_after_delete(services, monkeypatch)


def test_mutant_without_generations_brings_it_back(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ListCache, "invalidate", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="came back"):
        refill_after_delete(services, monkeypatch)


def test_store_rings_the_doorbell(services: Services, redis: Redis) -> None:
    # The cache's user may subscribe to the service's channels only.
    subscription: Any = redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    subscription.subscribe(keys.DOORBELL)
    subscription.get_message(timeout=1)
    services.episodes.store("alice", new_episode())
    assert subscription.get_message(timeout=5) is not None
    subscription.close()


def test_agent_cannot_reach_anothers_keys_by_its_name() -> None:
    assert keys.recent("a", 1, None, ()) != keys.recent("a:1", 1, None, ())
    assert keys.generation("a@b.c") == "nexus:generation:a@b.c"


def test_client_rests_after_a_failure_and_recovers(database_settings: Settings) -> None:
    client = BestEffortRedis(database_settings)
    assert client.attempt("ping", lambda redis: redis.ping()) is True
    client.redis.connection_pool.disconnect()
    assert client.attempt("ping", lambda redis: redis.ping()) is True
    client.close()


def outcomes() -> dict[str, float]:
    names = get_args(CacheOutcome)
    return {name: REGISTRY.get_sample_value("cache_requests_total", {"outcome": name}) or 0.0 for name in names}


def test_outcomes_are_counted(services: Services, database_settings: Settings, encoder: FakeEncoder) -> None:
    services.episodes.store("alice", new_episode())
    before = outcomes()
    services.episodes.recent("alice", 10)  # A miss, and the list is written.
    services.episodes.recent("alice", 10)
    services.episodes.recent("alice", 10)
    assert {name: count - before[name] for name, count in outcomes().items()} == {
        "hit": 2,
        "miss": 1,
        "unavailable": 0,
        "written": 1,
        "failed": 0,
    }
    without = build_services(database_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}), load=lambda _: encoder)
    before = outcomes()
    without.episodes.store("alice", new_episode())
    without.episodes.recent("alice", 10)
    without.close()
    after = outcomes()
    assert (after["failed"] - before["failed"], after["unavailable"] - before["unavailable"]) == (1, 1)


FOREIGN_VALUES: list[Any] = [b"abc", b"", b"\xff\xfe", b"5", b"[]", b"{}", b'"x"', b"null", b'{"generation": 1, "items": 5}']


@pytest.mark.parametrize("value", FOREIGN_VALUES)
def test_foreign_values_cost_a_miss_and_no_request(value: bytes, services: Services, redis: Redis) -> None:
    services.episodes.store("alice", new_episode("one"))
    contents(services)
    for key in list(redis.scan_iter("nexus:*")):
        redis.set(key, value)
    services.episodes.store("alice", new_episode("two"))
    assert contents(services) == ["two", "one"]
    (key,) = redis.scan_iter("nexus:recent:*")
    redis.set(key, value)
    assert contents(services) == contents(services) == ["two", "one"]


def test_keys_of_another_type_cost_a_miss_and_no_request(services: Services, redis: Redis) -> None:
    services.episodes.store("alice", new_episode("one"))
    contents(services)
    for key in list(redis.scan_iter("nexus:*")):
        redis.delete(key)
        redis.lpush(key, "x")
    assert contents(services) == ["one"]
    services.episodes.store("alice", new_episode("two"))
    assert contents(services) == contents(services) == ["two", "one"]
