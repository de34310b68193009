"""All SQL on memory blocks and checkpoints."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from app.consciousness.models import BlockView, CheckpointView, NewCheckpoint

_BLOCK = "agent_id, label, value, read_only, version, created_at, updated_at"
_GET_BLOCK = text(f"SELECT {_BLOCK} FROM consciousness.memory_blocks WHERE agent_id = :agent_id AND label = :label")
_LOCK_BLOCK = text(f"SELECT {_BLOCK} FROM consciousness.memory_blocks WHERE agent_id = :agent_id AND label = :label FOR UPDATE")
# By code points whatever the database's order of words is: that is how blocks are restored, imported and forgotten.
_LOCK_BLOCKS = text(f'SELECT {_BLOCK} FROM consciousness.memory_blocks WHERE agent_id = :agent_id ORDER BY label COLLATE "C" FOR UPDATE')
_LIST_BLOCKS = text(
    f"""
    SELECT {_BLOCK} FROM consciousness.memory_blocks
    WHERE agent_id = :agent_id AND (CAST(:after AS text) IS NULL OR label > :after) ORDER BY label LIMIT :most
    """
)
_INSERT_BLOCK = text(
    f"""
    INSERT INTO consciousness.memory_blocks (agent_id, label, value, read_only) VALUES (:agent_id, :label, :value, :read_only)
    ON CONFLICT (agent_id, label) DO NOTHING
    RETURNING {_BLOCK}
    """
)
_SET_VALUE = text("UPDATE consciousness.memory_blocks SET value = :value WHERE agent_id = :agent_id AND label = :label")
_SET_READ_ONLY = text(
    "UPDATE consciousness.memory_blocks SET read_only = :read_only, updated_at = now() WHERE agent_id = :agent_id AND label = :label"
)
_DELETE_BLOCK = text("DELETE FROM consciousness.memory_blocks WHERE agent_id = :agent_id AND label = :label")

_CHECKPOINT = "checkpoint_id, seq, agent_id, checkpoint_type, state_data, blocks, identity_hash, continuity_score, metadata, created_at"
_INSERT_CHECKPOINT = text(
    f"""
    INSERT INTO consciousness.consciousness_checkpoints
        (agent_id, checkpoint_type, state_data, blocks, identity_hash, continuity_score, metadata)
    VALUES (:agent_id, :checkpoint_type, CAST(:state_data AS jsonb), CAST(:blocks AS jsonb), :identity_hash, :continuity_score,
            CAST(:metadata AS jsonb))
    RETURNING {_CHECKPOINT}
    """
)
_GET_CHECKPOINT = text(
    f"SELECT {_CHECKPOINT} FROM consciousness.consciousness_checkpoints WHERE agent_id = :agent_id AND checkpoint_id = :checkpoint_id"
)
_LIST_CHECKPOINTS = text(
    f"""
    SELECT {_CHECKPOINT} FROM consciousness.consciousness_checkpoints
    WHERE agent_id = :agent_id AND (CAST(:checkpoint_type AS text) IS NULL OR checkpoint_type = :checkpoint_type)
      AND (CAST(:after AS bigint) IS NULL OR seq < :after)
    ORDER BY seq DESC LIMIT :most
    """
)


def get_block(connection: Connection, agent_id: str, label: str, *, lock: bool = False) -> BlockView | None:
    """Return one block, or None; locked until the end of the transaction if asked."""
    row = connection.execute(_LOCK_BLOCK if lock else _GET_BLOCK, {"agent_id": agent_id, "label": label}).one_or_none()
    return None if row is None else BlockView(**row._mapping)


def lock_blocks(connection: Connection, agent_id: str) -> list[BlockView]:
    """Return every block of the agent by the code points of its label, locked until the end of the transaction."""
    return [BlockView(**row._mapping) for row in connection.execute(_LOCK_BLOCKS, {"agent_id": agent_id})]


def list_blocks(connection: Connection, agent_id: str, most: int, after: str | None) -> list[BlockView]:
    """Return blocks in order of their labels; empty when there is none."""
    rows = connection.execute(_LIST_BLOCKS, {"agent_id": agent_id, "most": most, "after": after})
    return [BlockView(**row._mapping) for row in rows]


def insert_block(connection: Connection, agent_id: str, label: str, value: str, *, read_only: bool) -> BlockView | None:
    """Store a new block and return it; None when the label is taken."""
    parameters = {"agent_id": agent_id, "label": label, "value": value, "read_only": read_only}
    row = connection.execute(_INSERT_BLOCK, parameters).one_or_none()
    return None if row is None else BlockView(**row._mapping)


def set_value(connection: Connection, agent_id: str, label: str, value: str) -> None:
    """Change the value of a block; the database refuses it for a read-only one."""
    connection.execute(_SET_VALUE, {"agent_id": agent_id, "label": label, "value": value})


def set_read_only(connection: Connection, agent_id: str, label: str, *, read_only: bool) -> None:
    """Make a block read-only, or writable again."""
    connection.execute(_SET_READ_ONLY, {"agent_id": agent_id, "label": label, "read_only": read_only})


def delete_block(connection: Connection, agent_id: str, label: str) -> None:
    """Delete a block; the database refuses it for a read-only one."""
    connection.execute(_DELETE_BLOCK, {"agent_id": agent_id, "label": label})


def insert_checkpoint(
    connection: Connection,
    agent_id: str,
    checkpoint: NewCheckpoint,
    blocks: Mapping[str, str],
    *,
    identity_hash: str,
    continuity_score: float,
) -> CheckpointView:
    """Store a checkpoint and return it."""
    row = connection.execute(
        _INSERT_CHECKPOINT,
        {
            "agent_id": agent_id,
            "checkpoint_type": checkpoint.checkpoint_type,
            "state_data": orjson.dumps(checkpoint.state_data).decode(),
            "blocks": orjson.dumps(blocks).decode(),
            "identity_hash": identity_hash,
            "continuity_score": continuity_score,
            "metadata": orjson.dumps(checkpoint.metadata).decode(),
        },
    ).one()
    return _checkpoint(row)


def get_checkpoint(connection: Connection, agent_id: str, checkpoint_id: UUID) -> CheckpointView | None:
    """Return one checkpoint, or None."""
    row = connection.execute(_GET_CHECKPOINT, {"agent_id": agent_id, "checkpoint_id": checkpoint_id}).one_or_none()
    return None if row is None else _checkpoint(row)


def list_checkpoints(
    connection: Connection, agent_id: str, checkpoint_type: str | None, most: int, after: int | None
) -> list[CheckpointView]:
    """Return checkpoints, the newest first; empty when there is none."""
    rows = connection.execute(_LIST_CHECKPOINTS, {"agent_id": agent_id, "checkpoint_type": checkpoint_type, "most": most, "after": after})
    return [_checkpoint(row) for row in rows]


def _checkpoint(row: Any) -> CheckpointView:
    return CheckpointView(**row._mapping)
