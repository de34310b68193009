"""What memory blocks and checkpoints are on their way in and out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class BlockView:
    """A memory block as it is stored now; `version` grows with each change of its value."""

    agent_id: str
    label: str
    value: str
    read_only: bool
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """A state to keep, validated."""

    checkpoint_type: str
    state_data: dict[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """A checkpoint as it is stored.

    `blocks` are the agent's memory blocks at that moment, label to value; `identity_hash` is over them (see app.consciousness.identity);
    `continuity_score` compares them with the checkpoint before, and is 1.0 for the first.
    """

    checkpoint_id: UUID
    seq: int
    agent_id: str
    checkpoint_type: str
    state_data: dict[str, Any]
    blocks: dict[str, str]
    identity_hash: str
    continuity_score: float
    metadata: dict[str, Any]
    created_at: datetime
