"""What a semantic memory is on its way in and out."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class NewSemanticMemory:
    """Something an agent knows, validated: a concept, what it means, what it is related to, and from which episodes that is known."""

    concept: str
    definition: str
    relationships: dict[str, Any] = field(default_factory=dict)
    confidence_score: float = 0.5
    source_episodes: tuple[UUID, ...] = ()
    language: str | None = None


@dataclass(frozen=True, slots=True)
class SemanticView:
    """A semantic memory as it is stored now, with the state of its vector."""

    memory_id: UUID
    seq: int
    agent_id: str
    concept: str
    definition: str
    relationships: dict[str, Any]
    confidence_score: float
    source_episodes: list[UUID]
    language: str
    version: int
    created_at: datetime
    updated_at: datetime
    embedding_state: str
    embedding_attempts: int
    embedding_last_error: str | None
