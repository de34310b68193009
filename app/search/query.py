"""What is asked of a search, and what it answers."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from app.episodes.models import EpisodeFilters

SearchMode = Literal["hybrid", "vector", "keyword"]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One question to an agent's memory. min_score applies to the raw cosine of results that have one."""

    query: str
    limit: int = 10
    mode: SearchMode = "hybrid"
    min_score: float | None = None
    memory_types: tuple[str, ...] = ("episodic",)
    filters: EpisodeFilters = field(default_factory=EpisodeFilters)
    recency_weight: float = 0.0
    importance_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One result. `score` is in [0, 1] within one query; `score_breakdown` says where it comes from."""

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


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Results, best first; `pending_embeddings` counts the agent's episodes that only words can find yet."""

    results: list[SearchHit]
    pending_embeddings: int
    took_ms: float
