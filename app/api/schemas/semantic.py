"""Bodies, queries and answers of the routes of semantic memories."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.api.schemas.changes import Changes
from app.api.schemas.episodes import AgentQuery, EmbeddingDetail
from app.fields import AgentId, Content, JsonObject, Sources, StrictModel, Text256, UnitScore


class SemanticBody(StrictModel):
    """Something an agent knows."""

    concept: Text256 = Field(description="What it is about; embedded together with the definition.")
    definition: Content = Field(description="What is known of it.")
    relationships: JsonObject = Field({}, description="How it relates to other concepts, free in form.")
    confidence_score: UnitScore = Field(0.5, description="How sure the agent is; it decides on the lane as importance does for episodes.")
    source_episodes: Sources = Field([], description="Episodes of the agent from which this is known.")
    language: Literal["en", "es", "simple"] | None = Field(None, description="Language for the search by words.")
    agent_id: AgentId | None = Field(None, description="Whose memory; needed with an administrator's key unless X-Agent-Id says it.")


class SemanticChanges(Changes):
    """Fields to change; those left out stay as they are."""

    concept: Text256 = Field(None)  # type: ignore[assignment]
    definition: Content = Field(None, description="New words are a new version, embedded anew.")  # type: ignore[assignment]
    relationships: JsonObject = Field(None, description="Replaces the whole object.")  # type: ignore[arg-type]
    confidence_score: UnitScore = Field(None)  # type: ignore[assignment]
    source_episodes: Sources = Field(None)  # type: ignore[arg-type]
    language: Literal["en", "es", "simple"] = Field(None)  # type: ignore[arg-type]


class SemanticPath(BaseModel):
    """The id in the path."""

    memory_id: UUID


class SemanticListQuery(AgentQuery):
    """What GET /memory/semantic takes."""

    limit: int = Field(20, ge=1, le=100, description="Memories of one page.")
    cursor: str | None = Field(None, max_length=512, description="next_cursor of the page before; the other parameters stay the same.")
    concept: Text256 | None = Field(None, description="Only memories of just this concept.")


class SemanticAnswer(BaseModel):
    """One semantic memory as it is stored now."""

    memory_id: UUID
    version: int
    agent_id: str
    concept: str
    definition: str
    relationships: dict[str, Any]
    confidence_score: float
    source_episodes: list[UUID]
    language: str
    created_at: datetime
    updated_at: datetime
    embedding: EmbeddingDetail


class SemanticListAnswer(BaseModel):
    """Semantic memories, the newest first; next_cursor is null on the last page."""

    items: list[SemanticAnswer]
    next_cursor: str | None


class ForgottenSemanticAnswer(BaseModel):
    """What was deleted."""

    memory_id: UUID
    deleted: bool
