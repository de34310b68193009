"""Working memories in Redis, each under a key of its own with the time it has left, written through after the commit."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import WatchError

from app.cache import keys
from app.cache.generations import current_generation, raise_generation
from app.redis_client import BestEffortRedis

_log = structlog.get_logger(__name__)

_MOST_OWED = 10_000

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
        self._owed: OrderedDict[tuple[str, str], None] = OrderedDict()

    def generation(self, agent_id: str) -> int | None:
        """Return the agent's generation, to be read before the SQL whose outcome will be written; None when Redis is not to be had."""
        return self._redis.attempt("read a generation", lambda redis: current_generation(redis, keys.working_generation(agent_id)))

    def read(self, agent_id: str, context_id: str) -> tuple[bytes | None, int | None]:
        """Return (value, generation): value is None on a miss, generation is None when Redis is not to be had."""
        self._pay()

        def fetch(redis: Any) -> tuple[bytes | None, int]:
            generation_key = keys.working_generation(agent_id)
            now, value = redis.mget(generation_key, keys.working(agent_id, context_id))
            return value, (int(now) if now is not None else current_generation(redis, generation_key))

        answer = self._redis.attempt("read a working memory", fetch)
        return answer if answer is not None else (None, None)

    def write(self, agent_id: str, context_id: str, value: bytes, expires_at: datetime, generation: int | None) -> None:
        """Write through what a transaction that began under `generation` committed."""
        self._change(agent_id, context_id, generation, lambda pipeline, key: pipeline.set(key, value, pxat=_milliseconds(expires_at)))

    def remove(self, agent_id: str, context_id: str) -> None:
        """Remove what a transaction deleted."""
        self._change(agent_id, context_id, None, None)

    def refill(self, agent_id: str, context_id: str, value: bytes, expires_at: datetime, generation: int) -> bool:
        """Write what was read from PostgreSQL, if nobody changed the agent's working memory since `generation` was read.

        Returns:
            Whether it was written.
        """
        generation_key, key = keys.working_generation(agent_id), keys.working(agent_id, context_id)

        def put(pipeline: Any) -> None:
            pipeline.set(key, value, pxat=_milliseconds(expires_at))

        return bool(self._redis.attempt("refill a working memory", lambda redis: _if_unchanged(redis, generation_key, generation, put)))

    def _change(self, agent_id: str, context_id: str, generation: int | None, put: _Put | None) -> None:
        self._pay()
        generation_key, key = keys.working_generation(agent_id), keys.working(agent_id, context_id)

        def raise_and_put(pipeline: Any) -> None:
            raise_generation(pipeline, generation_key)
            if put is not None:
                put(pipeline, key)

        def command(redis: Redis) -> bool:
            if put is None or generation is None or not _if_unchanged(redis, generation_key, generation, raise_and_put):
                _remove(redis, [(agent_id, context_id)])
            return True

        if not self._redis.attempt("write a working memory through", command):
            self._owe(agent_id, context_id)

    def _owe(self, agent_id: str, context_id: str) -> None:
        self._owed[agent_id, context_id] = None
        while len(self._owed) > _MOST_OWED:
            self._owed.popitem(last=False)
            _log.warning("stale_value_left", action="`python -m app reconcile run` finds it; it runs by itself too")

    def _pay(self) -> None:
        if not self._owed:
            return
        owed = list(self._owed)

        def command(redis: Redis) -> bool:
            _remove(redis, owed)
            return True

        if self._redis.attempt("remove values that Redis missed", command):
            for entry in owed:
                self._owed.pop(entry, None)


def _if_unchanged(redis: Redis, generation_key: str, generation: int, queue: Callable[[Any], None]) -> bool:
    """Run the commands that `queue` adds in one step if the generation is still that one, and return whether they ran."""
    with redis.pipeline() as pipeline:
        pipeline.watch(generation_key)  # type: ignore[no-untyped-call]
        if int(pipeline.get(generation_key) or 0) != generation:
            return False
        pipeline.multi()
        queue(pipeline)
        try:
            pipeline.execute()
        except WatchError:
            return False
        return True


def _remove(redis: Redis, contexts: list[tuple[str, str]]) -> None:
    with redis.pipeline() as pipeline:
        for agent_id, context_id in contexts:
            raise_generation(pipeline, keys.working_generation(agent_id))
            pipeline.delete(keys.working(agent_id, context_id))
        pipeline.execute()


def sha1(value: bytes) -> bytes:
    """Return the digest by which reconciliation compares a value; sha1, because that is what Redis can compute itself."""
    return hashlib.sha1(value, usedforsecurity=False).digest()


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
