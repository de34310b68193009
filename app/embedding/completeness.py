"""Which agents have all of their memories under a model: the questions that a migration asks of vectors and work.

Every function is called in a transaction of nexus_worker, which sees all agents.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, TextClause, text

# What has a vector under each model, and those vectors.
_MEMORIES = """
    SELECT 'episodic' AS kind, episode_id AS id, agent_id, seq, input_sha256 FROM nexus_memory.zep_episodic_memory
    UNION ALL
    SELECT 'semantic', memory_id, agent_id, seq, input_sha256 FROM nexus_memory.semantic_memories"""
_VECTORS = """
    SELECT 'episodic' AS kind, episode_id AS id, model_id, input_sha256 FROM nexus_memory.episode_chunks
    UNION ALL
    SELECT 'semantic', memory_id, model_id, input_sha256 FROM nexus_memory.semantic_vectors"""
# Those that were there when the round began; each kind is numbered by itself.
_WERE_THERE = "t.seq <= CASE t.kind WHEN 'episodic' THEN CAST(:episodes_until AS bigint) ELSE CAST(:semantic_until AS bigint) END"

_AGENTS_LEFT = text(
    f"""
    SELECT DISTINCT t.agent_id FROM ({_MEMORIES}) t
    WHERE NOT EXISTS (SELECT 1 FROM memory_system.agent_models a WHERE a.agent_id = t.agent_id AND a.model_id = :model_id)
    ORDER BY 1
    """
)
# Agents that may not change over yet: a memory has no work of its present input under the model, or died of it. Those whose
# latest memories are just on their way may.
_NOT_READY = text(
    f"""
    SELECT DISTINCT t.agent_id FROM ({_MEMORIES}) t
    LEFT JOIN memory_system.embeddings_queue q
        ON q.target_kind = t.kind AND q.target_id = t.id AND q.model_id = :model_id AND q.input_sha256 = t.input_sha256
    WHERE (q.state IS NULL OR q.state = 'dead')
      AND NOT EXISTS (SELECT 1 FROM memory_system.agent_models a WHERE a.agent_id = t.agent_id AND a.model_id = :model_id)
    ORDER BY 1
    """
)
_ALL_AGENTS = text(f"SELECT DISTINCT t.agent_id FROM ({_MEMORIES}) t ORDER BY 1")
_NEWEST = text(
    "SELECT (SELECT coalesce(max(seq), 0) FROM nexus_memory.zep_episodic_memory) AS episodes_until,"
    " (SELECT coalesce(max(seq), 0) FROM nexus_memory.semantic_memories) AS semantic_until"
)
_PENDING_UNTIL = text(
    f"""
    SELECT count(*) FROM memory_system.embeddings_queue q JOIN ({_MEMORIES}) t ON t.kind = q.target_kind AND t.id = q.target_id
    WHERE q.model_id = :model_id AND q.state IN ('pending', 'processing') AND {_WERE_THERE}
    """
)
# Complete: every memory of the agent that was there at the start has its vectors of the model, or died trying when that is
# accepted. Later ones are embedded under both models at the same pace, so an agent that never stops writing changes over too.
_COMPLETE = text(
    f"""
    INSERT INTO memory_system.agent_models (agent_id, model_id)
    SELECT a.agent_id, :model_id FROM unnest(CAST(:agents AS text[])) AS a (agent_id)
    WHERE NOT EXISTS (
        SELECT 1 FROM ({_MEMORIES}) t
        WHERE t.agent_id = a.agent_id AND {_WERE_THERE}
          AND NOT EXISTS (SELECT 1 FROM ({_VECTORS}) v
                          WHERE v.kind = t.kind AND v.id = t.id AND v.model_id = :model_id AND v.input_sha256 = t.input_sha256)
          AND NOT (:accepts_dead AND EXISTS (
              SELECT 1 FROM memory_system.embeddings_queue q
              WHERE q.target_kind = t.kind AND q.target_id = t.id AND q.model_id = :model_id AND q.state = 'dead')))
    ON CONFLICT DO NOTHING RETURNING agent_id
    """
)


@dataclass(frozen=True, slots=True)
class Until:
    """The last memory of each kind, by seq, that was there at a moment; 0 when there was none."""

    episodes: int = 0
    semantic: int = 0


def newest(connection: Connection) -> Until:
    """Return the last memories that are there now."""
    row = connection.execute(_NEWEST).one()
    return Until(int(row.episodes_until), int(row.semantic_until))


def agents(connection: Connection) -> list[str]:
    """Return every agent that has memories, in order."""
    return _agents(connection, _ALL_AGENTS)


def incomplete_agents(connection: Connection, model_id: int) -> list[str]:
    """Return the agents that have not changed over to the model, in order."""
    return _agents(connection, _AGENTS_LEFT, model_id=model_id)


def unready_agents(connection: Connection, model_id: int) -> list[str]:
    """Return those of them that may not change over yet, in order: a memory has no work under the model, or died of it."""
    return _agents(connection, _NOT_READY, model_id=model_id)


def pending(connection: Connection, model_id: int, until: Until) -> int:
    """Return how many memories that were there then wait for their vectors of the model."""
    return int(connection.execute(_PENDING_UNTIL, {"model_id": model_id, **_bounds(until)}).scalar_one())


def change_over(connection: Connection, model_id: int, agents: Collection[str], until: Until, *, accepts_dead: bool) -> set[str]:
    """Record the agents whose memories of then all have their vectors of the model, and return them.

    Args:
        connection: In a transaction.
        model_id: Of the target.
        agents: Whom to look at.
        until: Later memories do not count.
        accepts_dead: Whether a memory that died under the model counts as done.
    """
    parameters = {"model_id": model_id, "agents": list(agents), "accepts_dead": accepts_dead, **_bounds(until)}
    return {row.agent_id for row in connection.execute(_COMPLETE, parameters)}


def _agents(connection: Connection, question: TextClause, **parameters: Any) -> list[str]:
    return [row.agent_id for row in connection.execute(question, parameters)]


def _bounds(until: Until) -> dict[str, int]:
    return {"episodes_until": until.episodes, "semantic_until": until.semantic}
