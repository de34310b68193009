"""How deep the queue was lately: one sample every ten seconds at most, shared by all processes, kept in Redis for half an hour."""

import time
from dataclasses import astuple, dataclass
from typing import Any

import orjson
from redis import Redis

from app.redis_client import BestEffortRedis

INTERVAL_SECONDS = 10
SPAN_SECONDS = 1800
"""How far back samples reach."""

_SAMPLES = "nexus:queue:depths"
_TURN = "nexus:queue:depths:turn"


@dataclass(frozen=True, slots=True)
class Depth:
    """The queue at a moment: seconds since 1970, and rows by state."""

    at: float
    pending: int
    processing: int
    done: int
    dead: int


class QueueDepths:
    """Notes how deep the queue is whenever somebody has counted it, and tells how it was.

    Losing them costs a chart its past and nothing else.

    Args:
        redis: Best effort.
    """

    def __init__(self, redis: BestEffortRedis) -> None:
        self._redis = redis

    def note(self, pending: int, processing: int, done: int, dead: int) -> None:
        """Keep a sample of now, unless one of the last ten seconds is kept."""
        sample = orjson.dumps(astuple(Depth(round(time.time(), 1), pending, processing, done, dead)))
        self._redis.attempt("keep the queue's depth", lambda redis: _note(redis, sample))

    def lately(self) -> list[Depth]:
        """Return the samples of the last half hour, the oldest first; empty when there is none, or Redis is away."""
        found: Any = self._redis.attempt("read the queue's depths", lambda redis: redis.lrange(_SAMPLES, 0, -1))
        since = time.time() - SPAN_SECONDS
        return [sample for sample in map(_depth, found or ()) if sample is not None and sample.at >= since]


def _depth(sample: bytes) -> Depth | None:
    """Return a sample; None when it is another release's."""
    try:
        return Depth(*orjson.loads(sample))
    except (TypeError, ValueError):
        return None


def _note(redis: Redis, sample: bytes) -> None:
    # A little less than the interval, or a caller that comes every ten seconds would find every other turn taken.
    if not redis.set(_TURN, b"", nx=True, px=INTERVAL_SECONDS * 1000 - 500):
        return
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.rpush(_SAMPLES, sample)
        pipeline.ltrim(_SAMPLES, -(SPAN_SECONDS // INTERVAL_SECONDS), -1)
        pipeline.expire(_SAMPLES, SPAN_SECONDS)
        pipeline.execute()
