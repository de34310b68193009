"""The mark that every write of an agent's memory changes, by which a value that was loaded before a write is told from one after.

A mark is random and only ever compared, so whatever somebody else puts under its key is one more mark; of another type, it is replaced.
"""

import secrets
from typing import Any

from redis import Redis

from app.cache.keys import WRITABLE


def current_generation(redis: Redis, key: str) -> str:
    """Return the mark under a key, making one when there is none."""
    (now,) = redis.mget(key)
    return as_generation(now) or _made(redis, key)


def read_while_writable(redis: Redis, *names: str) -> list[bytes | None]:
    """Return the values under keys, read in one trip with a write that changes nothing.

    A Redis that answers and takes no writes (full, a replica, its disk full) holds values that another process could not void.

    Raises:
        RedisError: It is not to be had, or takes no writes.
    """
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.setrange(WRITABLE, 0, "")
        pipeline.mget(*names)
        values: list[bytes | None] = pipeline.execute()[1]
    return values


def as_generation(value: bytes | str | None) -> str:
    """Return a mark as it is compared; empty when there is none."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value or ""


def raise_generation(pipeline: Any, key: str) -> None:
    """Queue the command that changes the mark under a key, whether or not it is there."""
    pipeline.set(key, _new())


def _made(redis: Redis, key: str) -> str:
    mark = _new()
    # Of two that make one at once the later wins, and what the other loads is not kept: a miss, and no harm.
    redis.set(key, mark)
    return mark


def _new() -> str:
    return secrets.token_hex(8)
