"""Bodies, queries and answers of the routes of memory blocks and checkpoints."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, Strict, StrictBool

from app.api.schemas.episodes import AgentQuery
from app.fields import AgentId, BlockLabel, BlockValue, JsonObject, StrictModel, Text128


class BlockBody(StrictModel):
    """What a block says from now on."""

    value: BlockValue
    read_only: StrictBool | None = Field(
        None, description="Whether it is fixed from now on; as it was by default. Only an administrator makes a fixed block writable."
    )
    expected_version: Annotated[int, Strict(), Field(ge=0, lt=2**31)] | None = Field(
        None, description="Change it only while this is its version, 0 for a block that is not there; otherwise 409."
    )
    agent_id: AgentId | None = Field(None, description="Whose memory; needed with an administrator's key unless X-Agent-Id says it.")


class NewBlockBody(StrictModel):
    """A block under a new label."""

    label: BlockLabel
    value: BlockValue
    read_only: StrictBool = False
    agent_id: AgentId | None = Field(None, description="Whose memory; needed with an administrator's key unless X-Agent-Id says it.")


class BlockPath(BaseModel):
    """The label in the path."""

    label: BlockLabel


class PageQuery(AgentQuery):
    """A page of a list."""

    limit: int = Field(20, ge=1, le=100, description="Items of one page.")
    cursor: str | None = Field(None, max_length=1024, description="next_cursor of the page before; the other parameters stay the same.")


class CheckpointListQuery(PageQuery):
    """What GET /consciousness/checkpoints takes."""

    checkpoint_type: Text128 | None = None


class CheckpointBody(StrictModel):
    """A state to keep."""

    checkpoint_type: Text128 = "manual"
    state_data: JsonObject = Field(description="Whatever the agent needs to go on from here, at most 64 KiB.")
    metadata: JsonObject = Field({})
    agent_id: AgentId | None = Field(None, description="Whose memory; needed with an administrator's key unless X-Agent-Id says it.")


class CheckpointPath(BaseModel):
    """The id in the path."""

    checkpoint_id: UUID


class RestoreBody(StrictModel):
    """How to restore."""

    write_blocks: StrictBool = Field(False, description="Put the memory blocks back as they were at the checkpoint, all of them or none.")
    agent_id: AgentId | None = Field(None, description="Whose memory; needed with an administrator's key unless X-Agent-Id says it.")


class BlockAnswer(BaseModel):
    """A block as it is stored now; `version` grows with each change of its value."""

    label: str
    agent_id: str
    value: str
    read_only: bool
    version: int
    created_at: datetime
    updated_at: datetime


class BlockListAnswer(BaseModel):
    """Blocks in order of their labels; next_cursor is null on the last page."""

    items: list[BlockAnswer]
    next_cursor: str | None


class ForgottenBlockAnswer(BaseModel):
    """What was deleted."""

    label: str
    deleted: bool


class CheckpointAnswer(BaseModel):
    """A checkpoint; identity_hash is over the blocks of its moment, continuity_score compares them with the checkpoint before."""

    checkpoint_id: UUID
    agent_id: str
    checkpoint_type: str
    state_data: dict[str, Any]
    blocks: dict[str, str]
    identity_hash: str
    continuity_score: float
    metadata: dict[str, Any]
    created_at: datetime


class CheckpointListAnswer(BaseModel):
    """Checkpoints, the newest first; next_cursor is null on the last page."""

    items: list[CheckpointAnswer]
    next_cursor: str | None


class BlockChanges(BaseModel):
    """Labels of blocks that are not as they were at the checkpoint."""

    changed: list[str]
    added: list[str]
    removed: list[str]


class RestoreAnswer(BaseModel):
    """The state of a checkpoint, and how far the agent still was who it was then."""

    checkpoint: CheckpointAnswer
    is_intact: bool = Field(description="Whether the checkpoint's blocks still have its identity_hash.")
    current_identity_hash: str = Field(description="Over the blocks as they were before this restore.")
    continuity_score: float = Field(description="1.0 when the blocks were those of the checkpoint, else the share of labels that were.")
    changes: BlockChanges
    blocks_written: int
