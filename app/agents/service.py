"""Forgetting an agent: in every store, with proof."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app.agents import repository
from app.audit import record
from app.cache.agents import AgentCache
from app.db import Database
from app.errors import NexusError, PermissionDenied, Unavailable

_log = structlog.get_logger(__name__)

# One transaction takes well under a second, vectors included, so neither a timeout nor a vacuum stands in its way.
_EPISODES_A_STEP = 500
_ROWS_A_STEP = 5000


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted by store, and what is there still: all zero, unless somebody wrote meanwhile."""

    agent_id: str
    deleted: dict[str, int]
    remaining: dict[str, int]


class AgentService:
    """What concerns an agent as a whole.

    Args:
        database: Logged in as nexus_app.
        cache: Everything that Redis holds of an agent.
    """

    def __init__(self, database: Database, cache: AgentCache) -> None:
        self._database = database
        self._cache = cache

    def size(self, agent_id: str) -> dict[str, int]:
        """Return how many rows each store holds of the agent."""
        with self._database.transaction(agent_id) as connection:
            return repository.rows(connection)

    def forget(
        self, agent_id: str, by: UUID | None, when_forgotten: Callable[[int], None] = lambda _: None, *, may_unlock: bool
    ) -> Forgotten:
        """Delete everything of an agent from every store. Tombstones of its episodes stay in the ledger, without content hash and nonce.

        It works in many transactions: interrupted, it may be called again, and goes on.

        Args:
            agent_id: Whom.
            by: The key that asked for it, for the audit log; None for the command line.
            when_forgotten: Told after each step how many episodes it took.
            may_unlock: Whether the caller may make a read-only block writable, and so may have it forgotten.

        Raises:
            PermissionDenied: The agent has read-only blocks, and the caller may not unlock them; nothing was deleted.
            Unavailable: Redis could not be reached; PostgreSQL holds nothing of the agent any more, and the call may be repeated.
            DatabaseUnavailable: The call may be repeated.
        """
        with self._database.transaction(agent_id) as connection:
            _require_unlocked(connection, agent_id, may_unlock=may_unlock)
        try:
            deleted = self._delete(agent_id, when_forgotten, may_unlock=may_unlock)
        except NexusError:
            # Of what is deleted so far, Redis may serve nothing, even if nobody repeats the call.
            self._cache.forget(agent_id)
            raise
        return self._prove(agent_id, by, deleted)

    def _delete(self, agent_id: str, when_forgotten: Callable[[int], None], *, may_unlock: bool) -> Counter[str]:
        """Delete the agent's rows, in steps, and return how many of each store."""
        deleted: Counter[str] = Counter({"episodes": 0})
        while True:
            with self._database.transaction(agent_id) as connection:
                step = repository.forget_episodes(connection, _EPISODES_A_STEP)
            deleted["episodes"] += step
            when_forgotten(step)
            if step < _EPISODES_A_STEP:
                break
        while True:
            with self._database.transaction(agent_id) as connection:
                _require_unlocked(connection, agent_id, may_unlock=may_unlock)
                others = repository.forget_others(connection, _ROWS_A_STEP)
            deleted.update(others)
            if max(others.values()) < _ROWS_A_STEP:
                break
        return deleted

    def _prove(self, agent_id: str, by: UUID | None, deleted: Counter[str]) -> Forgotten:
        keys = self._cache.forget(agent_id)
        with self._database.transaction(agent_id) as connection:
            remaining = repository.rows(connection)
            record(connection, by, "forget agent", agent_id, {"deleted": dict(deleted), "redis_keys": keys})
        _log.info("agent_forgotten", episodes=deleted["episodes"], remaining=sum(remaining.values()))
        if keys is None:
            raise Unavailable("PostgreSQL holds nothing of the agent any more, but Redis could not be reached: repeat the request")
        return Forgotten(agent_id, dict(deleted) | {"redis_keys": keys}, remaining)


def _require_unlocked(connection: Connection, agent_id: str, *, may_unlock: bool) -> None:
    if not may_unlock and (fixed := repository.fixed_blocks(connection, agent_id)):
        raise PermissionDenied(f"the agent has {fixed} read-only memory blocks: only an administrator forgets them")
