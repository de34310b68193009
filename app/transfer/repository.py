"""All SQL that reads an agent's memory as lines of an export, and that stores lines under the ids they bring."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from app.transfer.models import BlockLine, CheckpointLine, SemanticLine, WorkingLine

Position = int | str
"""Where a row stands in the order of its kind: its number, a block's label. It stays the row's own whatever comes or goes beside it."""

# PostgreSQL writes the JSON: what an agent stored passes through nothing else. Each page begins after a position in the order of the kind.
_PAGES = {
    "episode": """
        SELECT e.seq AS position, jsonb_build_object('type', 'episode', 'agent_id', e.agent_id, 'episode_id', e.episode_id, 'seq', e.seq,
            'version', e.version, 'content', e.content, 'content_sha256', encode(e.content_sha256, 'hex'), 'action_type', e.action_type,
            'actor', e.actor, 'session_id', e.session_id, 'tags', e.tags, 'importance_score', e.importance_score,
            'occurred_at', e."timestamp", 'metadata', e.metadata, 'action_details', e.action_details, 'context_state', e.context_state,
            'project', p.name, 'language', e.language, 'idempotency_key', e.idempotency_key,
            'request_sha256', encode(e.request_sha256, 'hex'), 'created_at', e.created_at, 'updated_at', e.updated_at)::text AS line
        FROM nexus_memory.zep_episodic_memory e
        LEFT JOIN nexus_memory.projects p ON p.agent_id = e.agent_id AND p.project_id = e.project_id
        WHERE e.agent_id = :agent_id AND e.seq > :after AND e.seq <= :last ORDER BY e.seq LIMIT :most""",
    "semantic": """
        SELECT s.seq AS position, jsonb_build_object('type', 'semantic', 'agent_id', s.agent_id, 'memory_id', s.memory_id,
            'version', s.version, 'concept', s.concept, 'definition', s.definition, 'relationships', s.relationships,
            'confidence_score', s.confidence_score, 'source_episodes', s.source_episodes, 'language', s.language,
            'created_at', s.created_at, 'updated_at', s.updated_at)::text AS line
        FROM nexus_memory.semantic_memories s
        WHERE s.agent_id = :agent_id AND s.seq > :after AND s.seq <= :last ORDER BY s.seq LIMIT :most""",
    "working": """
        SELECT w.seq AS position, jsonb_build_object('type', 'working', 'agent_id', w.agent_id, 'context_id', w.context_id,
            'session_id', w.session_id, 'context_type', w.context_type, 'active_content', w.active_content, 'priority', w.priority,
            'ttl_seconds', w.ttl_seconds, 'expires_at', w.expires_at, 'created_at', w.created_at, 'updated_at', w.updated_at)::text AS line
        FROM nexus_memory.working_memory_contexts w
        WHERE w.agent_id = :agent_id AND w.seq > :after AND w.seq <= :last AND w.expires_at > now() ORDER BY w.seq LIMIT :most""",
    "block": """
        SELECT m.label AS position, jsonb_build_object('type', 'block', 'agent_id', m.agent_id, 'label', m.label, 'value', m.value,
            'read_only', m.read_only, 'version', m.version, 'created_at', m.created_at, 'updated_at', m.updated_at)::text AS line
        FROM consciousness.memory_blocks m
        WHERE m.agent_id = :agent_id AND m.label > :after AND m.label <= :last ORDER BY m.label LIMIT :most""",
    "checkpoint": """
        SELECT c.seq AS position, jsonb_build_object('type', 'checkpoint', 'agent_id', c.agent_id, 'checkpoint_id', c.checkpoint_id,
            'checkpoint_type', c.checkpoint_type, 'state_data', c.state_data, 'blocks', c.blocks, 'identity_hash', c.identity_hash,
            'continuity_score', c.continuity_score, 'metadata', c.metadata, 'created_at', c.created_at)::text AS line
        FROM consciousness.consciousness_checkpoints c
        WHERE c.agent_id = :agent_id AND c.seq > :after AND c.seq <= :last ORDER BY c.seq LIMIT :most""",
}
_PAGE = {kind: text(query) for kind, query in _PAGES.items()}
_LAST = {
    "episode": text("SELECT coalesce(max(seq), 0) FROM nexus_memory.zep_episodic_memory WHERE agent_id = :agent_id"),
    "semantic": text("SELECT coalesce(max(seq), 0) FROM nexus_memory.semantic_memories WHERE agent_id = :agent_id"),
    "working": text("SELECT coalesce(max(seq), 0) FROM nexus_memory.working_memory_contexts WHERE agent_id = :agent_id"),
    "block": text("SELECT coalesce(max(label), '') FROM consciousness.memory_blocks WHERE agent_id = :agent_id"),
    "checkpoint": text("SELECT coalesce(max(seq), 0) FROM consciousness.consciousness_checkpoints WHERE agent_id = :agent_id"),
}

_STANDING = text("SELECT episode_id, standing FROM memory_system.known_episodes(CAST(:ids AS uuid[]))")
_INSERT_SEMANTIC = text(
    """
    INSERT INTO nexus_memory.semantic_memories
        (memory_id, agent_id, concept, definition, relationships, confidence_score, source_episodes, language)
    VALUES (:memory_id, :agent_id, :concept, :definition, CAST(:relationships AS jsonb), :confidence_score,
            CAST(:source_episodes AS uuid[]), :language)
    ON CONFLICT (memory_id) DO NOTHING RETURNING memory_id
    """
)
_SAME_SEMANTIC = text(
    "SELECT concept = :concept AND definition = :definition AND relationships = CAST(:relationships AS jsonb)"
    " AND confidence_score = :confidence_score AND source_episodes = CAST(:source_episodes AS uuid[]) AND language = :language"
    " FROM nexus_memory.semantic_memories"
    " WHERE agent_id = :agent_id AND memory_id = :memory_id"
)
_INSERT_WORKING = text(
    """
    INSERT INTO nexus_memory.working_memory_contexts AS w
        (agent_id, context_id, session_id, context_type, active_content, priority, ttl_seconds, expires_at)
    VALUES (:agent_id, :context_id, :session_id, :context_type, CAST(:active_content AS jsonb), :priority, :ttl_seconds, :expires_at)
    ON CONFLICT (agent_id, context_id) DO UPDATE
        SET session_id = excluded.session_id, context_type = excluded.context_type, active_content = excluded.active_content,
            priority = excluded.priority, ttl_seconds = excluded.ttl_seconds, expires_at = excluded.expires_at, created_at = now()
        WHERE w.expires_at <= now()
    RETURNING context_id
    """
)
# Without the end of its time, which moves on whenever a working memory is read with refresh.
_SAME_WORKING = text(
    "SELECT active_content = CAST(:active_content AS jsonb) AND session_id IS NOT DISTINCT FROM :session_id"
    " AND context_type = :context_type AND priority = :priority AND ttl_seconds IS NOT DISTINCT FROM :ttl_seconds"
    " FROM nexus_memory.working_memory_contexts"
    " WHERE agent_id = :agent_id AND context_id = :context_id"
)
_INSERT_BLOCK = text(
    "INSERT INTO consciousness.memory_blocks (agent_id, label, value, read_only) VALUES (:agent_id, :label, :value, :read_only)"
    " ON CONFLICT (agent_id, label) DO NOTHING RETURNING label"
)
_SAME_BLOCK = text(
    "SELECT value = :value AND read_only = :read_only FROM consciousness.memory_blocks WHERE agent_id = :agent_id AND label = :label"
)
_INSERT_CHECKPOINT = text(
    """
    INSERT INTO consciousness.consciousness_checkpoints
        (checkpoint_id, agent_id, checkpoint_type, state_data, blocks, identity_hash, continuity_score, metadata, created_at)
    VALUES (:checkpoint_id, :agent_id, :checkpoint_type, CAST(:state_data AS jsonb), CAST(:blocks AS jsonb), :identity_hash,
            :continuity_score, CAST(:metadata AS jsonb), :created_at)
    ON CONFLICT (checkpoint_id) DO NOTHING RETURNING checkpoint_id
    """
)
_SAME_CHECKPOINT = text(
    "SELECT identity_hash = :identity_hash AND state_data = CAST(:state_data AS jsonb) AND checkpoint_type = :checkpoint_type"
    " AND continuity_score = :continuity_score AND metadata = CAST(:metadata AS jsonb) AND created_at = :created_at"
    " FROM consciousness.consciousness_checkpoints"
    " WHERE agent_id = :agent_id AND checkpoint_id = :checkpoint_id"
)


class Stored(NamedTuple):
    """What became of one line: stored now, or there already and `same` or not; None when its id is another agent's."""

    is_new: bool
    same: bool | None = None


def last_position(connection: Connection, agent_id: str, kind: str) -> Position:
    """Return the position of the last line of a kind at this moment; that before the first when there is none."""
    last: Position = connection.execute(_LAST[kind], {"agent_id": agent_id}).scalar_one()
    return last


def page(
    connection: Connection, agent_id: str, kind: str, *, after: Position | None, last: Position, most: int
) -> list[tuple[Position, str]]:
    """Return (position, JSON text) of the next lines of a kind, in order, from the first if `after` is None; empty after the last."""
    if after is None:
        after = "" if kind == "block" else 0
    rows = connection.execute(_PAGE[kind], {"agent_id": agent_id, "after": after, "last": last, "most": most})
    return [(row.position, row.line) for row in rows]


def standing(connection: Connection, episode_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return own, deleted or taken for each of the ids that was ever an episode's; others are absent."""
    rows = connection.execute(_STANDING, {"ids": list(map(str, episode_ids))})
    return {row.episode_id: row.standing for row in rows}


def _store(connection: Connection, insert: Any, same: Any, parameters: dict[str, Any]) -> Stored:
    if connection.execute(insert, parameters).first() is not None:
        return Stored(is_new=True)
    named = {name: value for name, value in parameters.items() if f":{name}" in same.text}
    return Stored(is_new=False, same=connection.execute(same, named).scalar_one_or_none())


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def insert_semantic(connection: Connection, agent_id: str, line: SemanticLine, language: str) -> Stored:
    """Store a semantic memory under its id."""
    parameters = {
        "memory_id": line.memory_id,
        "agent_id": agent_id,
        "concept": line.concept,
        "definition": line.definition,
        "relationships": _json(line.relationships),
        "confidence_score": float(line.confidence_score),
        "source_episodes": list(map(str, line.source_episodes)),
        "language": language,
    }
    return _store(connection, _INSERT_SEMANTIC, _SAME_SEMANTIC, parameters)


def insert_working(connection: Connection, agent_id: str, line: WorkingLine) -> Stored:
    """Store a working memory under its id, with the end it had."""
    parameters = {
        "agent_id": agent_id,
        "context_id": line.context_id,
        "session_id": line.session_id,
        "context_type": line.context_type,
        "active_content": _json(line.active_content),
        "priority": line.priority,
        "ttl_seconds": line.ttl_seconds,
        "expires_at": line.expires_at,
    }
    return _store(connection, _INSERT_WORKING, _SAME_WORKING, parameters)


def insert_block(connection: Connection, agent_id: str, line: BlockLine) -> Stored:
    """Store a memory block under its label."""
    parameters = {"agent_id": agent_id, "label": line.label, "value": line.value, "read_only": line.read_only}
    return _store(connection, _INSERT_BLOCK, _SAME_BLOCK, parameters)


def insert_checkpoint(connection: Connection, agent_id: str, line: CheckpointLine) -> Stored:
    """Store a checkpoint under its id, with its time."""
    parameters = {
        "checkpoint_id": line.checkpoint_id,
        "agent_id": agent_id,
        "checkpoint_type": line.checkpoint_type,
        "state_data": _json(line.state_data),
        "blocks": _json(line.blocks),
        "identity_hash": line.identity_hash,
        "continuity_score": float(line.continuity_score),
        "metadata": _json(line.metadata),
        "created_at": line.created_at,
    }
    return _store(connection, _INSERT_CHECKPOINT, _SAME_CHECKPOINT, parameters)
