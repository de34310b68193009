"""The names of every key and channel in Redis. No part may hold ':', so no two names can collide."""

import hashlib
from collections.abc import Sequence

DOORBELL = "nexus:doorbell"
"""Channel that is rung after a commit which made work for the dispatcher."""


def generation(agent_id: str) -> str:
    """Return the key of the number that every write of the agent's memory changes."""
    return f"nexus:generation:{agent_id}"


def recent(agent_id: str, limit: int, session_id: str | None, tags: Sequence[str]) -> str:
    """Return the key of one list of recent episodes; free text is hashed, so it may hold anything."""
    digest = hashlib.sha256(repr((session_id, sorted(tags))).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"nexus:recent:{agent_id}:{limit}:{digest}"


def working(agent_id: str, context_id: str) -> str:
    """Return the key of one working memory."""
    return f"nexus:working:{agent_id}:{context_id}"


def working_generation(agent_id: str) -> str:
    """Return the key of the number that every write of the agent's working memory changes."""
    return f"nexus:working-generation:{agent_id}"


def of_agent(agent_id: str) -> tuple[str, ...]:
    """Return the patterns of all keys of an agent, whose name holds no character with a meaning in patterns."""
    return (f"nexus:*:{agent_id}", f"nexus:*:{agent_id}:*")
