"""Working memories in Redis, each under a key of its own with the time it has left, written through after the commit."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from redis import Redis
from redis.exceptions import WatchError

from app.cache import keys
from app.cache.counting import observe_read, observe_write
from app.cache.generations import as_generation, current_generation, raise_generation, read_while_writable
from app.errors import OutcomeUnknown
from app.redis_client import BestEffortRedis

_Put = Callable[[Any, str], object]


class ContextCache:
    """Reads and writes values, each only while nobody changed the agent's working memory since the caller began.

    A writer reads the agent's generation before its SQL. After the commit it raises the generation and writes its value in one step,
    but only if the generation is still the one it read; otherwise somebody else wrote meanwhile, nobody knows whose commit came last,
    and the value is removed, to be read from PostgreSQL next time. A refill does the same without raising the generation.

    A change that Redis did not take is owed: the value is removed as soon as Redis answers this process again. What a process that
    dies owes, reconciliation finds.
    """

    def __init__(self, redis: BestEffortRedis) -> None:
        self._redis = redis

    def generation(self, agent_id: str) -> str | None:
        """Return the agent's generation, to be read before the SQL whose outcome will be written; None when Redis is not to be had."""
        return self._redis.attempt("read a generation", lambda redis: current_generation(redis, keys.working_generation(agent_id)))

    def read(self, agent_id: str, context_id: str) -> tuple[bytes | None, str | None]:
        """Return (value, generation): value is None on a miss, generation is None when Redis is not to be had."""

        def fetch(redis: Any) -> tuple[bytes | None, str]:
            generation_key = keys.working_generation(agent_id)
            now, value = read_while_writable(redis, generation_key, keys.working(agent_id, context_id))
            return value, (as_generation(now) or current_generation(redis, generation_key))

        answer = self._redis.attempt("read a working memory", fetch)
        observe_read(answer)
        return answer if answer is not None else (None, None)

    def write(self, agent_id: str, context_id: str, value: bytes, expires_at: datetime, generation: str | None) -> None:
        """Write through what a transaction that began under `generation` committed."""
        self._change(agent_id, context_id, generation, lambda pipeline, key: pipeline.set(key, value, pxat=_milliseconds(expires_at)))

    def remove(self, agent_id: str, context_id: str) -> None:
        """Remove what a transaction deleted."""
        self._change(agent_id, context_id, None, None)

    def refill(self, agent_id: str, context_id: str, value: bytes, expires_at: datetime, generation: str) -> bool:
        """Write what was read from PostgreSQL, if nobody changed the agent's working memory since `generation` was read.

        Returns:
            Whether it was written.
        """
        generation_key, key = keys.working_generation(agent_id), keys.working(agent_id, context_id)

        def put(pipeline: Any) -> None:
            pipeline.set(key, value, pxat=_milliseconds(expires_at))

        return bool(self._redis.attempt("refill a working memory", lambda redis: _if_unchanged(redis, generation_key, generation, put)))

    def _change(self, agent_id: str, context_id: str, generation: str | None, put: _Put | None) -> None:
        generation_key, key = keys.working_generation(agent_id), keys.working(agent_id, context_id)

        def raise_and_put(pipeline: Any) -> None:
            raise_generation(pipeline, generation_key)
            if put is not None:
                put(pipeline, key)

        def command(redis: Redis) -> bool:
            if put is None or generation is None or not _if_unchanged(redis, generation_key, generation, raise_and_put):
                with redis.pipeline() as pipeline:
                    _queue_removal(pipeline, agent_id, context_id)
                    pipeline.execute()
            return True

        done = self._redis.attempt("write a working memory through", command)
        observe_write(done)
        if not done:
            self._redis.owe(key, partial(_queue_removal, agent_id=agent_id, context_id=context_id))

    @contextmanager
    def removed_if_unknown(self, agent_id: str, context_id: str) -> Iterator[None]:
        """Remove the value when nobody knows whether the transaction in the block took effect."""
        try:
            yield
        except OutcomeUnknown:
            self.remove(agent_id, context_id)
            raise


def _if_unchanged(redis: Redis, generation_key: str, generation: str, queue: Callable[[Any], None]) -> bool:
    """Run the commands that `queue` adds in one step if the generation is still that one, and return whether they ran."""
    with redis.pipeline() as pipeline:
        pipeline.watch(generation_key)  # type: ignore[no-untyped-call]
        (now,) = pipeline.mget(generation_key)
        if as_generation(now) != generation:
            return False
        pipeline.multi()
        queue(pipeline)
        try:
            pipeline.execute()
        except WatchError:
            return False
        return True


def _queue_removal(pipeline: Any, agent_id: str, context_id: str) -> None:
    raise_generation(pipeline, keys.working_generation(agent_id))
    pipeline.delete(keys.working(agent_id, context_id))


def digest(agent_id: str, context_id: str, value: bytes) -> bytes:
    """Return the digest by which reconciliation compares a value under its key: of two values that changed places, both differ.

    It is SHA-1 of key, line feed and value (20 bytes), because that is what Redis can compute itself.
    """
    key = keys.working(agent_id, context_id).encode()
    return hashlib.sha1(key + b"\n" + value, usedforsecurity=False).digest()


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
