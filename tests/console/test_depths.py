"""Samples of the queue's depth in Redis: few, bounded, shared, and missed by nobody when they are gone."""

import time

import orjson
import pytest

from app.bootstrap import Services, build_cache_redis
from app.cache.depths import INTERVAL_SECONDS, SPAN_SECONDS, QueueDepths
from app.config import Settings


@pytest.fixture
def kept(services: Services) -> QueueDepths:
    return services.queue_depths


def test_two_processes_share_one_sample_in_ten_seconds(services: Services, database_settings: Settings) -> None:
    other = QueueDepths(build_cache_redis(database_settings))
    services.queue_depths.note(1, 2, 3, 4)
    other.note(9, 9, 9, 9)
    assert services.queue_depths.lately() == other.lately()
    (sample,) = other.lately()
    assert (sample.pending, sample.processing, sample.done, sample.dead) == (1, 2, 3, 4)
    assert abs(sample.at - time.time()) < 5


def test_samples_are_bounded_and_end_by_themselves(kept: QueueDepths, database_settings: Settings) -> None:
    redis = build_cache_redis(database_settings).redis
    for number in range(200):
        redis.delete("nexus:queue:depths:turn")
        kept.note(number, 0, 0, 0)
    assert redis.llen("nexus:queue:depths") == SPAN_SECONDS // INTERVAL_SECONDS == 180
    assert [kept.lately()[0].pending, kept.lately()[-1].pending] == [20, 199]
    assert 0 < redis.ttl("nexus:queue:depths") <= SPAN_SECONDS


def test_sample_of_another_release_or_too_old_is_passed_over(kept: QueueDepths, database_settings: Settings) -> None:
    redis = build_cache_redis(database_settings).redis
    for odd in (b"{", b"[1]", b"{}", b"7", orjson.dumps([time.time(), 1, 2, 3, 4, 5]), orjson.dumps([time.time() - 3600, 1, 2, 3, 4])):
        redis.rpush("nexus:queue:depths", odd)
    kept.note(1, 0, 0, 0)
    assert [sample.pending for sample in kept.lately()] == [1]


def test_without_redis_there_is_no_past_and_no_error(database_settings: Settings) -> None:
    away = QueueDepths(build_cache_redis(database_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})))
    away.note(1, 2, 3, 4)
    assert away.lately() == []
