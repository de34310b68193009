"""What a working memory is on its way in and out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

Priority = Literal["critical", "high", "normal", "low"]

PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""Most important first."""


@dataclass(frozen=True, slots=True)
class NewContext:
    """A context to keep for `ttl_seconds` from now, validated."""

    active_content: dict[str, Any]
    ttl_seconds: int
    session_id: str | None = None
    context_type: str = "general"
    priority: Priority = "normal"


@dataclass(frozen=True, slots=True)
class ContextView:
    """A context as it is stored now; `expires_at` is None when it never ends, which only plain SQL can say."""

    agent_id: str
    context_id: str
    seq: int
    session_id: str | None
    context_type: str
    active_content: dict[str, Any]
    priority: Priority
    ttl_seconds: int | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ContextPosition:
    """A place in the list of contexts: the rank of the priority, 0 for low to 3 for critical, and seq."""

    rank: int
    seq: int
