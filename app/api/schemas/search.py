"""Body and answer of the search route."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, Strict

from app.fields import AgentId, JsonObject, Limit, Moment, SearchText, StrictModel, Tags, Text128, Text256, UnitScore

MemoryType = Literal["episodic", "semantic", "working"]


class FiltersBody(StrictModel):
    """Conditions that every result meets; those left out do not narrow the search."""

    tags_any: Tags | None = Field(None, description="At least one of these tags.")
    tags_all: Tags | None = Field(None, description="Every one of these tags.")
    session_id: Text256 | None = None
    actor: Text128 | None = None
    action_type: Text256 | None = None
    project: Text256 | None = None
    occurred_after: Moment | None = None
    occurred_before: Moment | None = None
    min_importance: UnitScore | None = None
    metadata: JsonObject | None = Field(None, description="An object that the episode's metadata must contain.")


class SearchBody(StrictModel):
    """What to look for."""

    query: SearchText
    agent_id: AgentId | None = Field(None, description="Whose memory; needed with an administrator's key unless X-Agent-Id says it.")
    limit: Limit = 10
    mode: Literal["hybrid", "vector", "keyword"] = "hybrid"
    min_score: Annotated[float, Strict(), Field(ge=-1, le=1)] | None = Field(
        None, description="Least raw cosine of a result found by vector."
    )
    memory_types: Annotated[list[MemoryType], Field(min_length=1, max_length=3)] = Field(["episodic"])
    filters: FiltersBody = Field(default_factory=FiltersBody)
    project: Text256 | None = Field(None, description="Short for filters.project.")
    recency_weight: UnitScore = 0.0
    importance_weight: UnitScore = 0.0


class HitAnswer(BaseModel):
    """One result."""

    memory_type: str
    id: str
    episode_id: UUID | None
    agent_id: str
    content: str
    score: float
    score_breakdown: dict[str, Any]
    occurred_at: datetime | None
    actor: str | None
    session_id: str | None
    tags: list[str]
    importance_score: float | None
    metadata: dict[str, Any]
    embedding_state: str | None


class SearchResultsAnswer(BaseModel):
    """Results, the best first; `pending_embeddings` counts the agent's episodes that no vector search can see yet."""

    results: list[HitAnswer]
    pending_embeddings: int
    took_ms: float
