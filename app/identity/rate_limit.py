"""How many requests a key may make in a minute, counted in Redis over all processes."""

import time
from threading import Lock
from uuid import UUID

from redis import Redis

from app.errors import RateLimited
from app.redis_client import BestEffortRedis

_WINDOW_SECONDS = 60


class RateLimiter:
    """Counts requests in windows of a minute that begin with the clock's minute.

    While Redis is away each process counts by itself: the limit then holds for each of them.

    Args:
        redis: Best effort.
        per_minute: For keys that have no limit of their own; 0 for none.
    """

    def __init__(self, redis: BestEffortRedis, per_minute: int) -> None:
        self._redis = redis
        self._per_minute = per_minute
        self._lock = Lock()
        self._window = 0
        self._counts: dict[UUID, int] = {}

    def count(self, key_id: UUID, per_minute: int | None) -> None:
        """Count one request of a key.

        Args:
            key_id: Whose.
            per_minute: The key's own limit; None for the server's.

        Raises:
            RateLimited: It has made as many as it may in this minute.
        """
        limit = self._per_minute if per_minute is None else per_minute
        if not limit:
            return
        now = time.time()
        window = int(now // _WINDOW_SECONDS)
        made = self._redis.attempt("count a request", lambda redis: _count(redis, f"nexus:rate:{key_id}:{window}"))
        if made is None:
            made = self._count_here(key_id, window)
        if made > limit:
            left = max(1, round((window + 1) * _WINDOW_SECONDS - now))
            raise RateLimited(f"this key may make {limit} requests a minute; go on in {left} s", left)

    def _count_here(self, key_id: UUID, window: int) -> int:
        with self._lock:
            if window != self._window:
                self._window, self._counts = window, {}
            self._counts[key_id] = self._counts.get(key_id, 0) + 1
            return self._counts[key_id]


def _count(redis: Redis, key: str) -> int:
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.incr(key)
        pipeline.expire(key, 2 * _WINDOW_SECONDS)
        return int(pipeline.execute()[0])
