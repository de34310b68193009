"""The names of every key and channel in Redis. No part may hold ':', so no two names can collide."""

import hashlib
from collections.abc import Sequence

DOORBELL = "nexus:doorbell"
"""Channel that is rung after a commit which made work for the dispatcher."""

WRITABLE = "nexus:writable"
"""Key of nothing: a write to it that changes nothing tells whether Redis takes writes."""


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


def parse_working(key: bytes) -> tuple[str, str] | None:
    """Return (agent_id, context_id) of a key that `working` could have made, or None: such a key is of no context."""
    try:
        parts = key.decode().split(":")
    except UnicodeDecodeError:
        return None
    if len(parts) != 4 or "\0" in key.decode():
        return None
    return parts[2], parts[3]


def working_generation(agent_id: str) -> str:
    """Return the key of the number that every write of the agent's working memory changes."""
    return f"nexus:working-generation:{agent_id}"


def patterns_of(agent_id: str) -> tuple[str, ...]:
    """Return patterns of all keys that hold an agent's memory.

    An agent's name holds neither ':' nor a character with a meaning in patterns, and follows the kind of key, so no pattern meets
    a key of another agent, whatever its contexts are called.
    """
    return (f"nexus:working:{agent_id}:*", f"nexus:recent:{agent_id}:*")


def generations_of(agent_id: str) -> tuple[str, ...]:
    """Return the keys of an agent's generations."""
    return (generation(agent_id), working_generation(agent_id))
