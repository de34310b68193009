"""All SQL that changes or deletes an episode, with what the ledger keeps of it."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from app.episodes.models import Receipt, Tombstone

# What `changes` does not name stays; a JSON null clears. The triggers give new content its version and nonce.
_CHANGE = text(
    """
    UPDATE nexus_memory.zep_episodic_memory e
    SET content = CASE WHEN c.o ? 'content' THEN c.o ->> 'content' ELSE e.content END,
        actor = CASE WHEN c.o ? 'actor' THEN c.o ->> 'actor' ELSE e.actor END,
        action_type = CASE WHEN c.o ? 'action_type' THEN c.o ->> 'action_type' ELSE e.action_type END,
        session_id = CASE WHEN c.o ? 'session_id' THEN c.o ->> 'session_id' ELSE e.session_id END,
        language = CASE WHEN c.o ? 'language' THEN c.o ->> 'language' ELSE e.language END,
        tags = CASE WHEN c.o ? 'tags' THEN ARRAY(SELECT jsonb_array_elements_text(c.o -> 'tags')) ELSE e.tags END,
        metadata = CASE WHEN c.o ? 'metadata' THEN c.o -> 'metadata' ELSE e.metadata END,
        action_details = CASE WHEN c.o ? 'action_details' THEN nullif(c.o -> 'action_details', 'null') ELSE e.action_details END,
        context_state = CASE WHEN c.o ? 'context_state' THEN nullif(c.o -> 'context_state', 'null') ELSE e.context_state END,
        project_id = CASE WHEN c.o ? 'project_id' THEN (c.o ->> 'project_id')::uuid ELSE e.project_id END,
        importance_score = CASE WHEN c.o ? 'importance_score' THEN (c.o ->> 'importance_score')::double precision
                                ELSE e.importance_score END,
        "timestamp" = CASE WHEN c.o ? 'occurred_at' THEN (c.o ->> 'occurred_at')::timestamptz ELSE e."timestamp" END,
        updated_at = now()
    FROM (SELECT CAST(:changes AS jsonb) AS o) c
    WHERE e.agent_id = :agent_id AND e.episode_id = :episode_id
      AND (CAST(:expected_version AS integer) IS NULL OR e.version = CAST(:expected_version AS integer))
    RETURNING e.episode_id, e.seq, e.version, encode(e.content_sha256, 'hex') AS content_sha256, e.receipt_nonce, e.created_at
    """
)
# Locked, so that what the episode was before the change is known: what was altered behind the service's back must not become right by it.
_BEFORE = text(
    """
    WITH locked AS MATERIALIZED (
        SELECT episode_id, version FROM nexus_memory.zep_episodic_memory
        WHERE agent_id = :agent_id AND episode_id = :episode_id FOR NO KEY UPDATE
    )
    SELECT version, memory_system.attributes_are_noted(episode_id) AS is_as_noted FROM locked
    """
)
_RECORD_EDIT = text("SELECT memory_system.record_edit(:episode_id)")
_NOTE_ATTRIBUTES = text("SELECT memory_system.note_attributes(:episode_id)")
_STATE = text(
    "SELECT coalesce((SELECT state FROM memory_system.embeddings_queue WHERE agent_id = :agent_id AND target_kind = 'episodic'"
    " AND target_id = :episode_id AND model_id = (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active)), 'missing')"
)
_DELETE = text("SELECT episode_id, seq, version, encode(leaf, 'hex') AS leaf, deleted_at FROM memory_system.delete_episode(:episode_id)")


def change(
    connection: Connection, agent_id: str, episode_id: UUID, changes: Mapping[str, Any], expected_version: int | None
) -> Receipt | None:
    """Change an episode, note the edit in the ledger, and return the receipt of what is stored now.

    Args:
        connection: In a transaction of the agent.
        agent_id: Whose.
        episode_id: Which.
        changes: Column names to JSON-ready values; None clears. `project_id` stands for the project.
        expected_version: Change it only while this is its version; None changes any.

    Returns:
        None when the agent has no such episode of that version.
    """
    before = connection.execute(_BEFORE, {"agent_id": agent_id, "episode_id": episode_id}).one_or_none()
    if before is None:
        return None
    row = connection.execute(
        _CHANGE,
        {
            "agent_id": agent_id,
            "episode_id": episode_id,
            "changes": orjson.dumps(changes).decode(),
            "expected_version": expected_version,
        },
    ).one_or_none()
    if row is None:
        return None
    if row.version != before.version:
        connection.execute(_RECORD_EDIT, {"episode_id": episode_id})
    if before.is_as_noted:
        connection.execute(_NOTE_ATTRIBUTES, {"episode_id": episode_id})
    state = connection.execute(_STATE, {"agent_id": agent_id, "episode_id": episode_id}).scalar_one()
    return Receipt(row.episode_id, row.seq, row.version, agent_id, row.content_sha256, row.receipt_nonce.hex, row.created_at, state)


def delete(connection: Connection, agent_id: str, episode_id: UUID) -> Tombstone | None:
    """Delete an episode from every table and return its tombstone, or None when the agent has no such episode."""
    row = connection.execute(_DELETE, {"episode_id": episode_id}).one_or_none()
    return None if row is None else Tombstone(row.episode_id, row.seq, row.version, agent_id, row.leaf, row.deleted_at)
