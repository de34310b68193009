"""Lists of an agent's memories in Redis, each valid only for the generation of the memory it was read from."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial

from redis import Redis

from app.cache import keys
from app.cache.counting import observe_read, observe_write
from app.cache.generations import as_generation, current_generation, raise_generation, read_while_writable
from app.errors import OutcomeUnknown
from app.redis_client import BestEffortRedis
from app.serialization import to_json

_TTL_SECONDS = 60


class ListCache:
    """Caches lists, and rings the doorbell, over one best-effort connection.

    Every write raises the agent's generation; an entry carries the generation that was current before its SQL ran, and counts
    only while that still holds. So a reader that loaded before a write cannot put the old list back.
    """

    def __init__(self, redis: BestEffortRedis) -> None:
        self._redis = redis

    def read(self, agent_id: str, key: str) -> tuple[list[dict[str, object]] | None, str | None]:
        """Return (items, generation): items is None on a miss, generation is None when Redis is not to be had."""

        def fetch(redis: Redis) -> tuple[list[dict[str, object]] | None, str]:
            now, entry = read_while_writable(redis, keys.generation(agent_id), key)
            generation = as_generation(now) or current_generation(redis, keys.generation(agent_id))
            return _items(entry, generation), generation

        answer = self._redis.attempt("read a list", fetch)
        observe_read(answer)
        return answer if answer is not None else (None, None)

    def store(self, key: str, generation: str, items: list[dict[str, object]]) -> None:
        """Keep a list for at most a minute.

        Args:
            key: From app.cache.keys.
            generation: What `read` returned before the items were loaded.
            items: JSON-ready.
        """
        value = to_json({"generation": generation, "items": items})
        observe_write(self._redis.attempt("store a list", lambda redis: bool(redis.set(key, value, ex=_TTL_SECONDS))))

    def invalidate(self, agent_ids: Collection[str], *, ring: bool) -> None:
        """Void every list of the agents and, if asked, wake the dispatcher; one round trip, after the commit.

        What Redis does not take is owed.
        """

        def write(redis: Redis) -> bool:
            pipeline = redis.pipeline(transaction=False)
            for agent_id in agent_ids:
                raise_generation(pipeline, keys.generation(agent_id))
            if ring:
                pipeline.publish(keys.DOORBELL, b"")
            pipeline.execute()
            return True

        done = self._redis.attempt("void lists and ring the doorbell", write)
        observe_write(done)
        if not done:
            for agent_id in agent_ids:
                key = keys.generation(agent_id)
                self._redis.owe(key, partial(raise_generation, key=key))

    @contextmanager
    def voided_if_unknown(self, agent_id: str) -> Iterator[None]:
        """Void the agent's lists when nobody knows whether the transaction in the block took effect."""
        try:
            yield
        except OutcomeUnknown:
            self.invalidate([agent_id], ring=True)
            raise


def _items(entry: bytes | str | None, generation: str) -> list[dict[str, object]] | None:
    """Return the items of an entry of this generation, None when it is another's or no entry of ours."""
    if entry is None:
        return None
    try:
        stored = json.loads(entry)
        items = stored["items"] if stored["generation"] == generation else None
    except (ValueError, TypeError, LookupError):
        return None
    return items if isinstance(items, list) and all(isinstance(item, dict) for item in items) else None
