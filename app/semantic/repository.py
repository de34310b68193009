"""All SQL on semantic memories."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from app.semantic.models import NewSemanticMemory, SemanticView

_VIEW = """
    SELECT s.memory_id, s.seq, s.agent_id, s.concept, s.definition, s.relationships, s.confidence_score, s.source_episodes, s.language,
           s.version, s.created_at, s.updated_at, coalesce(q.state, 'missing') AS embedding_state,
           coalesce(q.retry_count, 0) AS embedding_attempts, q.last_error AS embedding_last_error
    FROM nexus_memory.semantic_memories s
    LEFT JOIN memory_system.embeddings_queue q ON q.target_kind = 'semantic' AND q.target_id = s.memory_id
        AND q.model_id = (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active)
    WHERE s.agent_id = :agent_id
"""
_GET = text(f"{_VIEW} AND s.memory_id = :memory_id")
_MANY = text(f"{_VIEW} AND s.memory_id = ANY (CAST(:memory_ids AS uuid[]))")
_LIST = text(
    f"""
    {_VIEW} AND (CAST(:concept AS text) IS NULL OR s.concept = :concept) AND (CAST(:after AS bigint) IS NULL OR s.seq < :after)
    ORDER BY s.seq DESC LIMIT :most
    """
)
_INSERT = text(
    """
    INSERT INTO nexus_memory.semantic_memories
        (agent_id, concept, definition, relationships, confidence_score, source_episodes, language)
    VALUES (:agent_id, :concept, :definition, CAST(:relationships AS jsonb), :confidence_score, CAST(:source_episodes AS uuid[]), :language)
    RETURNING memory_id
    """
)
# What `changes` does not name stays. The triggers give new words their version and their work.
_CHANGE = text(
    """
    UPDATE nexus_memory.semantic_memories s
    SET concept = coalesce(c.o ->> 'concept', s.concept), definition = coalesce(c.o ->> 'definition', s.definition),
        relationships = coalesce(c.o -> 'relationships', s.relationships), language = coalesce(c.o ->> 'language', s.language),
        confidence_score = coalesce((c.o ->> 'confidence_score')::double precision, s.confidence_score),
        source_episodes = CASE WHEN c.o ? 'source_episodes'
            THEN ARRAY(SELECT i.id::uuid FROM jsonb_array_elements_text(c.o -> 'source_episodes') AS i (id)) ELSE s.source_episodes END,
        updated_at = now()
    FROM (SELECT CAST(:changes AS jsonb) AS o) c
    WHERE s.agent_id = :agent_id AND s.memory_id = :memory_id
      AND (CAST(:expected_version AS integer) IS NULL OR s.version = CAST(:expected_version AS integer))
    RETURNING s.memory_id
    """
)
_DELETE = text("DELETE FROM nexus_memory.semantic_memories WHERE agent_id = :agent_id AND memory_id = :memory_id RETURNING memory_id")
_UNKNOWN = text(
    """
    SELECT i.id FROM unnest(CAST(:ids AS uuid[])) AS i (id)
    WHERE NOT EXISTS (SELECT 1 FROM nexus_memory.zep_episodic_memory e WHERE e.agent_id = :agent_id AND e.episode_id = i.id)
    """
)


def unknown_episodes(connection: Connection, agent_id: str, episode_ids: Sequence[UUID]) -> list[UUID]:
    """Return those of the ids that are no episode of the agent."""
    return [row[0] for row in connection.execute(_UNKNOWN, {"agent_id": agent_id, "ids": list(map(str, episode_ids))})]


def insert(connection: Connection, agent_id: str, memory: NewSemanticMemory) -> UUID:
    """Store a semantic memory and return its id."""
    memory_id: UUID = connection.execute(
        _INSERT,
        {
            "agent_id": agent_id,
            "concept": memory.concept,
            "definition": memory.definition,
            "relationships": orjson.dumps(memory.relationships).decode(),
            "confidence_score": memory.confidence_score,
            "source_episodes": list(map(str, memory.source_episodes)),
            "language": memory.language,
        },
    ).scalar_one()
    return memory_id


def change(connection: Connection, agent_id: str, memory_id: UUID, changes: Mapping[str, Any], expected_version: int | None) -> bool:
    """Change the named fields; False when the agent has no such memory of that version."""
    parameters = {"agent_id": agent_id, "memory_id": memory_id, "expected_version": expected_version}
    return connection.execute(_CHANGE, parameters | {"changes": orjson.dumps(changes).decode()}).first() is not None


def delete(connection: Connection, agent_id: str, memory_id: UUID) -> bool:
    """Delete a semantic memory with its work, and return whether the agent had it."""
    return connection.execute(_DELETE, {"agent_id": agent_id, "memory_id": memory_id}).first() is not None


def get(connection: Connection, agent_id: str, memory_id: UUID) -> SemanticView | None:
    """Return one semantic memory of the agent, or None."""
    row = connection.execute(_GET, {"agent_id": agent_id, "memory_id": memory_id}).one_or_none()
    return None if row is None else SemanticView(**row._mapping)


def get_many(connection: Connection, agent_id: str, memory_ids: Sequence[UUID]) -> dict[UUID, SemanticView]:
    """Return those of the named memories that the agent has, by id."""
    rows = connection.execute(_MANY, {"agent_id": agent_id, "memory_ids": list(map(str, memory_ids))})
    return {row.memory_id: SemanticView(**row._mapping) for row in rows}


def list_page(connection: Connection, agent_id: str, concept: str | None, most: int, after: int | None) -> list[SemanticView]:
    """Return semantic memories, the newest first; empty when there is none."""
    rows = connection.execute(_LIST, {"agent_id": agent_id, "concept": concept, "most": most, "after": after})
    return [SemanticView(**row._mapping) for row in rows]
