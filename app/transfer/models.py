"""The lines of an export: one JSON object a line, the kind in `type`."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.fields import (
    AgentId,
    BlockLabel,
    BlockValue,
    Content,
    ContextId,
    HexDigest,
    JsonObject,
    Moment,
    Sources,
    Tags,
    Text128,
    Text256,
    UnitScore,
)

FORMAT = "nexus-cerebro-export"
VERSION = 1

KINDS = ("episode", "semantic", "working", "block", "checkpoint")
"""In the order of an export: semantic memories name episodes, so those come first."""


class _Line(BaseModel):
    # What the service gives by itself (seq, vectors, times of record) may stand in a line and counts for nothing.
    model_config = ConfigDict(extra="ignore", frozen=True)

    agent_id: AgentId | None = None


class HeaderLine(_Line):
    """The first line."""

    type: Literal["header"]
    format: Literal["nexus-cerebro-export"]
    version: Literal[1]


class EpisodeLine(_Line):
    """An episode; `content_sha256`, when it is there, must be that of the content."""

    type: Literal["episode"]
    episode_id: UUID
    content: Content
    content_sha256: HexDigest | None = None
    action_type: Text256 = "note"
    actor: Text128 | None = None
    session_id: Text256 | None = None
    tags: Tags = []
    importance_score: UnitScore = 0.5
    occurred_at: Moment
    metadata: JsonObject = {}
    action_details: JsonObject | None = None
    context_state: JsonObject | None = None
    project: Text256 | None = None
    language: Literal["en", "es", "simple"] | None = None
    idempotency_key: Text256 | None = None
    request_sha256: HexDigest | None = None


class SemanticLine(_Line):
    """A semantic memory."""

    type: Literal["semantic"]
    memory_id: UUID
    concept: Text256
    definition: Content
    relationships: JsonObject = {}
    confidence_score: UnitScore = 0.5
    source_episodes: Sources = []
    language: Literal["en", "es", "simple"] | None = None


class WorkingLine(_Line):
    """A working memory; one that has expired meanwhile is left out."""

    type: Literal["working"]
    context_id: ContextId
    active_content: JsonObject
    session_id: Text256 | None = None
    context_type: Text128 = "general"
    priority: Literal["critical", "high", "normal", "low"] = "normal"
    ttl_seconds: Annotated[int, Field(ge=1, le=31_536_000)]
    expires_at: Moment


class BlockLine(_Line):
    """A memory block."""

    type: Literal["block"]
    label: BlockLabel
    value: BlockValue
    read_only: bool = False


class CheckpointLine(_Line):
    """A checkpoint; `identity_hash` must be that of its blocks."""

    type: Literal["checkpoint"]
    checkpoint_id: UUID
    checkpoint_type: Text128
    state_data: JsonObject
    blocks: dict[BlockLabel, BlockValue] = {}
    identity_hash: HexDigest
    continuity_score: UnitScore = 1.0
    metadata: JsonObject = {}
    created_at: Moment


class EndLine(_Line):
    """The last line, with how many lines of each kind stand before it: a file without it was cut off."""

    type: Literal["end"]
    counts: dict[str, int]


MemoryLine = EpisodeLine | SemanticLine | WorkingLine | BlockLine | CheckpointLine
Line = Annotated[HeaderLine | MemoryLine | EndLine, Field(discriminator="type")]

LINES: TypeAdapter[Any] = TypeAdapter(Line)
