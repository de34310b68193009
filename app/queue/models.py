"""A piece of work at its stations: claimed, packed into a message, started."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

TargetKind = Literal["episodic", "semantic"]


@dataclass(frozen=True, slots=True)
class ClaimedRow:
    """A queue row that a dispatcher has taken and no worker has started."""

    target_kind: TargetKind
    target_id: UUID
    input_chars: int
    priority: int
    solo: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """What one message carries: ids and the token that proves the claim, never text."""

    queue: str
    target_kind: TargetKind
    target_ids: tuple[UUID, ...]
    token: UUID


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A started row with its text. `actor` is who said it; for a semantic memory, the concept."""

    target_id: UUID
    agent_id: str
    model_id: int
    actor: str | None
    content: str
    attempt: int
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Rows by state, and the age of the oldest pending one; zeros on an empty queue."""

    pending: int
    processing: int
    done: int
    dead: int
    oldest_pending_seconds: float
