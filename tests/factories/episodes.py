"""Episodes as the service takes them, and as plain SQL."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app.db import Database
from app.episodes.models import NewEpisode
from tests.factories.statements import Sql

_EDIT = text(
    "UPDATE nexus_memory.zep_episodic_memory SET content = :content"
    " WHERE episode_id = :episode_id AND agent_id = :agent_id RETURNING version"
)
_RECORD = text("SELECT memory_system.record_edit(:episode_id)")
_DELETE = text("SELECT count(*) FROM memory_system.delete_episode(:episode_id)")


def new_episode(content: str = "the kettle is on the stove", **fields: Any) -> NewEpisode:
    """Return a valid episode; its request hash follows from its fields, as the API's does."""
    request = repr((content, sorted(fields.items(), key=lambda item: item[0])))
    return NewEpisode(content=content, request_sha256=hashlib.sha256(request.encode("utf-8", "surrogatepass")).digest(), **fields)


def edit(database: Database, agent_id: str, episode_id: UUID, content: str, traceparent: str | None = None) -> int:
    """Edit an episode as the API's role does, with its event in the ledger, and return the new version."""
    with database.transaction(agent_id, traceparent) as connection:
        version = int(connection.execute(_EDIT, {"content": content, "episode_id": episode_id, "agent_id": agent_id}).scalar_one())
        connection.execute(_RECORD, {"episode_id": episode_id})
    return version


def delete(database: Database, agent_id: str, episode_id: UUID) -> bool:
    """Delete an episode as the API's role does, and return whether the agent had it."""
    with database.transaction(agent_id) as connection:
        return bool(connection.execute(_DELETE, {"episode_id": episode_id}).scalar_one())


@dataclass(frozen=True)
class QueueRow:
    """A row of the queue as it is stored; `due_in_seconds` is negative for what is overdue."""

    state: str
    generation: int
    priority: int
    retry_count: int
    solo: bool
    claim_token: UUID | None
    started_at: datetime | None
    last_error: str | None
    due_in_seconds: float
    processed_at: datetime | None


def queue_row(sql: Sql, target_id: UUID) -> QueueRow | None:
    """Return the queue row of a target, or None."""
    rows = sql(
        "SELECT state, generation, priority, retry_count, solo, claim_token, started_at, last_error,"
        " extract(epoch FROM due_at - now())::float8, processed_at FROM memory_system.embeddings_queue WHERE target_id = %s",
        str(target_id),
    )
    return QueueRow(*rows[0]) if rows else None


def stored_row(sql: Sql, target_id: UUID) -> QueueRow:
    """Return the queue row of a target that must have one."""
    row = queue_row(sql, target_id)
    assert row is not None
    return row


def vector_text(sql: Sql, episode_id: UUID) -> str:
    """Return whose vector an episode has: 'none', 'present' (of its text now) or 'stale'; 'torn' when row and chunks disagree."""
    ((row_hash, present, chunks, stale_chunks),) = sql(
        "SELECT e.embedding_sha256, e.embedding_sha256 = e.input_sha256, count(c.*),"
        " count(c.*) FILTER (WHERE c.input_sha256 <> e.input_sha256)"
        " FROM nexus_memory.zep_episodic_memory e LEFT JOIN nexus_memory.episode_chunks c USING (episode_id)"
        " WHERE e.episode_id = %s GROUP BY e.episode_id",
        str(episode_id),
    )
    if row_hash is None and not chunks:
        return "none"
    if stale_chunks or (row_hash is not None and not present):
        return "stale"
    return "present" if chunks and present else "torn"
