"""Everything that Redis holds of one agent."""

from functools import partial

from redis import Redis

from app.cache import keys
from app.cache.generations import raise_generation
from app.redis_client import BestEffortRedis

_KEYS_A_CALL = 500


class AgentCache:
    """Removes an agent from Redis.

    Args:
        redis: Best effort; the answer says whether it was reached.
    """

    def __init__(self, redis: BestEffortRedis) -> None:
        self._redis = redis

    def forget(self, agent_id: str) -> int | None:
        """Remove all that is kept of the agent and return how many values; None when Redis was not reached or failed.

        What Redis did not take is owed: this process asks Redis for nothing else before it is done.
        """
        removed = self._redis.attempt("forget an agent", partial(_forget, agent_id=agent_id))
        if removed is None:
            # Which values there are is not known before Redis answers again, so nothing can be queued now.
            self._redis.owe(("forget", agent_id), lambda _: _forget(self._redis.redis, agent_id))
        return removed


def _forget(redis: Redis, agent_id: str) -> int:
    # The generations go up first and go last, so that a reader that loaded before cannot put anything back.
    with redis.pipeline() as pipeline:
        for key in keys.generations_of(agent_id):
            raise_generation(pipeline, key)
        pipeline.execute()
    removed = sum(_remove(redis, pattern) for pattern in keys.patterns_of(agent_id))
    redis.unlink(*keys.generations_of(agent_id))
    return removed


def _remove(redis: Redis, pattern: str) -> int:
    removed, portion = 0, []
    for key in redis.scan_iter(pattern, count=1000):
        portion.append(key)
        if len(portion) == _KEYS_A_CALL:
            removed += int(redis.unlink(*portion))
            portion = []
    return removed + (int(redis.unlink(*portion)) if portion else 0)
