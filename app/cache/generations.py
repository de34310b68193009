"""The number that every write of an agent's memory changes, by which a value that was loaded before a write is told from one after."""

import time
from typing import Any

from redis import Redis


def current_generation(redis: Redis, key: str) -> int:
    """Return the number under a key, making it when it is missing.

    It starts at the clock, so that it differs from any number it had before Redis lost it.
    """
    now = redis.get(key)
    if now is None:
        redis.set(key, _clock(), nx=True)
        now = redis.get(key)
    return int(now or 0)


def raise_generation(pipeline: Any, key: str) -> None:
    """Queue the commands that change the number under a key, whether or not it is there."""
    pipeline.set(key, _clock(), nx=True)
    pipeline.incr(key)


def _clock() -> int:
    return time.time_ns() // 1000
