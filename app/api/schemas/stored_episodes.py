"""Queries, bodies and answers of the routes that list, change and delete stored episodes."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from app.api.schemas.changes import Changes
from app.api.schemas.episodes import AgentQuery, EpisodeAnswer
from app.fields import (
    Content,
    JsonObject,
    Moment,
    Tags,
    Text128,
    Text256,
    UnitScore,
)


def _parse_object(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise PydanticCustomError("json_invalid", 'must be a JSON object such as {{"kind": "plan"}}') from None


JsonText = Annotated[JsonObject, BeforeValidator(_parse_object)]
"""A JSON object written as text, as a query string holds it."""


class ListQuery(AgentQuery):
    """What GET /memory/episodic takes. Repeat tags_any and tags_all for more than one tag."""

    limit: int = Field(20, ge=1, le=100, description="Episodes of one page.")
    cursor: str | None = Field(None, max_length=512, description="next_cursor of the page before; the other parameters stay the same.")
    order: Literal["newest", "oldest"] = Field("newest", description="By occurred_at, then in order of acceptance.")
    tags_any: Tags | None = Field(None, description="At least one of these tags.")
    tags_all: Tags | None = Field(None, description="Every one of these tags.")
    session_id: Text256 | None = None
    actor: Text128 | None = None
    action_type: Text256 | None = None
    project: Text256 | None = None
    occurred_after: Moment | None = Field(None, description="Not before this moment.")
    occurred_before: Moment | None = Field(None, description="Before this moment.")
    min_importance: Annotated[float, Field(ge=0, le=1)] | None = None
    metadata: JsonText | None = Field(None, description="A JSON object that the episode's metadata must contain.")


class ContextQuery(AgentQuery):
    """What GET /memory/episodic/{episode_id}/context takes."""

    before: int = Field(5, ge=0, le=100, description="Most turns before it.")
    after: int = Field(5, ge=0, le=100, description="Most turns after it.")


def _refuse_content(details: dict[str, Any] | None) -> dict[str, Any] | None:
    if details is not None and "content" in details:
        raise PydanticCustomError("content_in_details", "must not hold `content`: change the episode's content instead")
    return details


class EpisodeChanges(Changes):
    """Fields to change; those left out stay as they are, and null clears those that may be absent."""

    content: Content = Field(None, description="New content is a new version, embedded anew.")  # type: ignore[assignment]
    actor: Text128 | None = Field(None, description="It belongs to what is embedded: another actor is embedded anew.")
    action_type: Text256 = Field(None)  # type: ignore[assignment]
    session_id: Text256 | None = None
    tags: Tags = Field(None)  # type: ignore[arg-type]
    importance_score: UnitScore = Field(None)  # type: ignore[assignment]
    occurred_at: Moment = Field(None)  # type: ignore[assignment]
    metadata: JsonObject = Field(None, description="Replaces the whole object.")  # type: ignore[arg-type]
    action_details: Annotated[JsonObject | None, AfterValidator(_refuse_content)] = None
    context_state: JsonObject | None = None
    project: Text256 | None = None
    language: Literal["en", "es", "simple"] = Field(None)  # type: ignore[arg-type]


class ListAnswer(BaseModel):
    """One page of episodes; next_cursor is null on the last."""

    items: list[EpisodeAnswer]
    next_cursor: str | None


class ConversationAnswer(BaseModel):
    """An episode and its neighbours in the session, in the order in which they happened."""

    before: list[EpisodeAnswer]
    episode: EpisodeAnswer
    after: list[EpisodeAnswer]


class TombstoneAnswer(BaseModel):
    """Proof that an episode was deleted: `leaf` is what the ledger keeps of its last version; its content hash is erased."""

    episode_id: UUID
    seq: int
    version: int
    agent_id: str
    leaf: str
    deleted_at: datetime


class ProjectAnswer(BaseModel):
    """A project and how many episodes it has."""

    project_id: UUID
    name: str
    created_at: datetime
    episode_count: int


class ProjectsAnswer(BaseModel):
    """Projects by name."""

    items: list[ProjectAnswer]
