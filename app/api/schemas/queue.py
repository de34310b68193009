"""Queries, bodies and answers of the routes that show the queue and replay its dead rows."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, RootModel, Strict, StrictBool, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from app.fields import TEXT_PATTERN, QueryModel, StrictModel
from app.queue.dead import MOST_REPLAYED, DeadCauses, DeadPage, Replay
from app.queue.status import QueueStatus

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


class QueueAnswer(RootModel[QueueStatus]):
    """The queue over all agents; `waiting` are those of the pending rows that are due later."""


class DeadCausesAnswer(RootModel[DeadCauses]):
    """Dead rows by cause, the most frequent first, and all of them together."""


class DeadRowsAnswer(RootModel[DeadPage]):
    """One page of dead rows in order of target_id; next_cursor is null on the last page."""


class ReplayAnswer(RootModel[Replay]):
    """How many rows were given a new set of attempts, and how many of those asked for are dead still."""
