"""Queries, bodies and answers of the routes that show the queue and replay its dead rows."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field, Strict, StrictBool, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from app.api.schemas.fields import TEXT_PATTERN, QueryModel, StrictModel
from app.queue.dead import MOST_REPLAYED

Cause = Annotated[str, StringConstraints(max_length=500, pattern=TEXT_PATTERN)]


class DeadRowsQuery(QueryModel):
    """What GET /queue/dead/rows takes."""

    cause: Cause | None = Field(None, description="Only rows of this cause, as GET /queue/dead spells it.")
    limit: int = Field(100, ge=1, le=1000, description="Rows of one page.")
    cursor: UUID | None = Field(None, description="next_cursor of the page before.")


class ReplayBody(StrictModel):
    """Which dead rows to replay: exactly one of ids, cause and all."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=MOST_REPLAYED)] | None = Field(
        None, description="target_id of each; one that is not dead does not count."
    )
    cause: Cause | None = Field(None, description="As GET /queue/dead spells it.")
    all: StrictBool | None = Field(None, description="Every dead row.")
    limit: Annotated[int, Strict(), Field(ge=1, le=MOST_REPLAYED)] = Field(
        MOST_REPLAYED, description="Rows at most; repeat the request while rows remain."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if self.all is False or sum(given is not None for given in (self.ids, self.cause, self.all)) != 1:
            raise PydanticCustomError("one_of", "give exactly one of ids, cause and all")
        return self


class LaneAnswer(BaseModel):
    """Unfinished rows of one priority lane."""

    lane: str
    pending: int
    waiting: int
    processing: int
    oldest_pending_age_seconds: float


class WorkerAnswer(BaseModel):
    """A worker heard from lately."""

    worker_id: str
    hostname: str
    pid: int
    slots: int
    model: str | None
    precision: str | None
    items_per_second: float | None
    seconds_since_heartbeat: float
    problem: str | None


class DispatcherAnswer(BaseModel):
    """A dispatcher heard from lately."""

    worker_id: str
    hostname: str
    pid: int
    seconds_since_heartbeat: float


class AdviceAnswer(BaseModel):
    """How many workers would drain the backlog in drain_minutes."""

    workers_advised: int
    workers_at_work: int
    pending: int
    drain_minutes: float
    worker_items_per_second: float | None
    minutes_to_drain: float | None
    reason: str


class QueueAnswer(BaseModel):
    """The queue over all agents; `waiting` are those of the pending rows that are due later."""

    pending: int
    waiting: int
    processing: int
    done: int
    dead: int
    oldest_pending_age_seconds: float
    lanes: list[LaneAnswer]
    workers: list[WorkerAnswer]
    dispatchers: list[DispatcherAnswer]
    advice: AdviceAnswer


class DeadCauseAnswer(BaseModel):
    """Dead rows with the same last error, and up to five of their targets."""

    cause: str
    rows: int
    agents: int
    first_dead_at: datetime | None
    last_dead_at: datetime | None
    examples: list[UUID]


class DeadCausesAnswer(BaseModel):
    """Dead rows by cause, the most frequent first, and all of them together."""

    causes: list[DeadCauseAnswer]
    total: int


class DeadRowAnswer(BaseModel):
    """One dead row, without content."""

    target_kind: str
    target_id: UUID
    model_id: int
    agent_id: str
    input_chars: int
    attempts: int
    cause: str
    enqueued_at: datetime
    dead_at: datetime | None


class DeadRowsAnswer(BaseModel):
    """One page of dead rows in order of target_id; next_cursor is null on the last page."""

    items: list[DeadRowAnswer]
    next_cursor: UUID | None


class ReplayAnswer(BaseModel):
    """How many rows were given a new set of attempts, and how many of those asked for are dead still."""

    replayed: int
    remaining: int
