"""A piece of work at its stations: picked from the queue, claimed, sent as a message, started."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

TargetKind = Literal["episodic", "semantic"]


@dataclass(frozen=True, slots=True)
class ClaimedRow:
    """A queue row that a dispatcher has taken and no worker has started."""

    target_kind: TargetKind
    target_id: UUID
    model_id: int
    input_chars: int
    priority: int
    solo: bool
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """Rows of one kind and one model, and the token that proves who may finish them. Ids, never text."""

    target_kind: TargetKind
    model_id: int
    target_ids: tuple[UUID, ...]
    token: UUID

    def only(self, target_ids: Iterable[UUID]) -> "Claim":
        """Return the same claim on some of its rows."""
        return replace(self, target_ids=tuple(target_ids))


@dataclass(frozen=True, slots=True)
class Batch:
    """One message: a claim, the Celery queue that carries it, and how many characters it has in all."""

    queue: str
    claim: Claim
    chars: int


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A started row with its text.

    `actor` is who said it; for a semantic memory, the concept. `solo` says that the row is under suspicion and travels alone.
    """

    target_id: UUID
    agent_id: str
    actor: str | None
    content: str
    attempt: int
    solo: bool
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    """How long a done row took, from its start and from when its text was enqueued; None where its model is not the active one."""

    processing_seconds: float
    searchable_seconds: float | None


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Rows by state, and the age of the oldest pending one; zeros on an empty queue."""

    pending: int
    processing: int
    done: int
    dead: int
    oldest_pending_seconds: float
