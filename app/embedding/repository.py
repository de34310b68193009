"""All SQL on vectors and models. The caller holds the claim; targets are locked before queue rows."""

from collections.abc import Collection, Sequence
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, TextClause, text

from app.embedding.models import ChunkVector, Embedded, EmbeddingModel, ModelsInUse
from app.queue.models import TargetKind

_IN_USE = text(
    "SELECT model_id, name, version, dimensions, fingerprint, source, is_active FROM memory_system.embedding_models"
    " WHERE is_active OR is_target"
)

_TEXTS: dict[TargetKind, TextClause] = {
    "episodic": text(
        "SELECT episode_id AS id, actor, content FROM nexus_memory.zep_episodic_memory WHERE episode_id = ANY (CAST(:ids AS uuid[]))"
    ),
    "semantic": text(
        "SELECT memory_id AS id, concept AS actor, definition AS content FROM nexus_memory.semantic_memories"
        " WHERE memory_id = ANY (CAST(:ids AS uuid[]))"
    ),
}

# The vectors of one episode for each input asked for. One that was altered by hand is not spread.
_KNOWN = text(
    """
    WITH wanted AS (
        SELECT agent_id, decode(hash, 'hex') AS hash FROM unnest(CAST(:agents AS text[]), CAST(:hashes AS text[])) AS w (agent_id, hash)
    ), source AS (
        SELECT DISTINCT ON (w.agent_id, w.hash) w.agent_id, w.hash, c.episode_id
        FROM wanted w JOIN nexus_memory.episode_chunks c
            ON c.agent_id = w.agent_id AND c.model_id = :model_id AND c.input_sha256 = w.hash
        ORDER BY w.agent_id, w.hash, c.episode_id
    )
    SELECT s.agent_id, s.hash, c.char_start, c.char_end, c.embedding::text AS vector,
           c.vector_sha256 = sha256(public.vector_send(c.embedding)) AS is_intact
    FROM source s JOIN nexus_memory.episode_chunks c ON c.episode_id = s.episode_id AND c.model_id = :model_id
    ORDER BY s.agent_id, s.hash, c.chunk_no
    """
)

# SKIP LOCKED: a client that holds the row is changing or deleting it, and its transaction must not wait for ours, nor ours for it.
_LOCKS: dict[TargetKind, TextClause] = {
    "episodic": text(
        "SELECT episode_id AS id, input_sha256 FROM nexus_memory.zep_episodic_memory WHERE episode_id = ANY (CAST(:ids AS uuid[]))"
        " ORDER BY episode_id FOR NO KEY UPDATE SKIP LOCKED"
    ),
    "semantic": text(
        "SELECT memory_id AS id, input_sha256 FROM nexus_memory.semantic_memories WHERE memory_id = ANY (CAST(:ids AS uuid[]))"
        " ORDER BY memory_id FOR NO KEY UPDATE SKIP LOCKED"
    ),
}

_DROP_CHUNKS = text("DELETE FROM nexus_memory.episode_chunks WHERE episode_id = ANY (CAST(:ids AS uuid[])) AND model_id = :model_id")
_ADD_CHUNKS = text(
    """
    INSERT INTO nexus_memory.episode_chunks
        (episode_id, model_id, chunk_no, agent_id, char_start, char_end, input_sha256, embedding, vector_sha256)
    SELECT c.id, :model_id, c.chunk_no, c.agent_id, c.char_start, c.char_end, decode(c.input_sha256, 'hex'), c.vector::public.vector,
           sha256(public.vector_send(c.vector::public.vector))
    FROM unnest(CAST(:ids AS uuid[]), CAST(:chunk_nos AS int[]), CAST(:agents AS text[]), CAST(:starts AS int[]), CAST(:ends AS int[]),
                CAST(:hashes AS text[]), CAST(:vectors AS text[])) AS c (id, chunk_no, agent_id, char_start, char_end, input_sha256, vector)
    """
)
_DROP_SEMANTIC = text("DELETE FROM nexus_memory.semantic_vectors WHERE memory_id = ANY (CAST(:ids AS uuid[])) AND model_id = :model_id")
_ADD_SEMANTIC = text(
    """
    INSERT INTO nexus_memory.semantic_vectors (memory_id, model_id, agent_id, input_sha256, embedding, vector_sha256)
    SELECT v.id, :model_id, v.agent_id, decode(v.input_sha256, 'hex'), v.vector::public.vector,
           sha256(public.vector_send(v.vector::public.vector))
    FROM unnest(CAST(:ids AS uuid[]), CAST(:agents AS text[]), CAST(:hashes AS text[]), CAST(:vectors AS text[]))
        AS v (id, agent_id, input_sha256, vector)
    """
)
_TARGETS: tuple[tuple[TargetKind, str, str], ...] = (
    ("episodic", "zep_episodic_memory", "episode_id"),
    ("semantic", "semantic_memories", "memory_id"),
)
_SET_POOLED: dict[TargetKind, TextClause] = {
    kind: text(
        f"""
        UPDATE nexus_memory.{table} t
        SET embedding = v.vector::public.vector, embedding_version = :version, embedding_sha256 = decode(v.input_sha256, 'hex')
        FROM unnest(CAST(:ids AS uuid[]), CAST(:vectors AS text[]), CAST(:hashes AS text[])) AS v (id, vector, input_sha256)
        WHERE t.{key} = v.id AND t.input_sha256 = decode(v.input_sha256, 'hex')
          AND EXISTS (SELECT 1 FROM memory_system.embedding_models m WHERE m.model_id = :model_id AND m.is_active)
        """
    )
    for kind, table, key in _TARGETS
}


def models_in_use(connection: Connection) -> ModelsInUse | None:
    """Return the active model and the target of a migration, or None when the database names no active model."""
    rows = list(connection.execute(_IN_USE))
    by_role = {
        row.is_active: EmbeddingModel(row.model_id, row.name, row.version, row.dimensions, row.fingerprint, row.source, row.is_active)
        for row in rows
    }
    return ModelsInUse(by_role[True], by_role.get(False)) if True in by_role else None


def texts(connection: Connection, kind: TargetKind, ids: Sequence[UUID]) -> dict[UUID, tuple[str | None, str]]:
    """Return (actor, content) by id as stored now; deleted targets are absent."""
    rows = connection.execute(_TEXTS[kind], {"ids": list(map(str, ids))})
    return {row.id: (row.actor, row.content) for row in rows}


def known_chunks(connection: Connection, model_id: int, keys: Collection[tuple[str, bytes]]) -> dict[tuple[str, bytes], list[ChunkVector]]:
    """Return stored chunk vectors by (agent_id, input hash), in order of their place; inputs that have none are absent.

    Args:
        connection: In a transaction.
        model_id: Whose vectors.
        keys: Whose text, and the hash of the whole input.
    """
    rows = connection.execute(
        _KNOWN, {"model_id": model_id, "agents": [agent for agent, _ in keys], "hashes": [digest.hex() for _, digest in keys]}
    )
    known: dict[tuple[str, bytes], list[ChunkVector]] = {}
    altered = set()
    for row in rows:
        key = (row.agent_id, bytes(row.hash))
        known.setdefault(key, []).append(ChunkVector(row.char_start, row.char_end, np.array(orjson.loads(row.vector), dtype=np.float32)))
        if not row.is_intact:
            altered.add(key)
    return {key: chunks for key, chunks in known.items() if key not in altered}


def lock_targets(connection: Connection, kind: TargetKind, ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """Lock the targets in id order and return the present input hash, by id, of those that nobody else holds."""
    return {row.id: bytes(row.input_sha256) for row in connection.execute(_LOCKS[kind], {"ids": list(map(str, ids))})}


def _literal(vector: NDArray[np.float32]) -> str:
    """Return pgvector's text form; orjson writes the shortest digits that read back as the same float32."""
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def write_chunks(connection: Connection, model: EmbeddingModel, embedded: Sequence[Embedded]) -> None:
    """Replace the episodes' chunk vectors under the model."""
    connection.execute(_DROP_CHUNKS, {"ids": [str(item.target_id) for item in embedded], "model_id": model.model_id})
    rows = [(item, number, chunk) for item in embedded for number, chunk in enumerate(item.chunks)]
    connection.execute(
        _ADD_CHUNKS,
        {
            "model_id": model.model_id,
            "ids": [str(item.target_id) for item, _, _ in rows],
            "chunk_nos": [number for _, number, _ in rows],
            "agents": [item.agent_id for item, _, _ in rows],
            "starts": [chunk.char_start for _, _, chunk in rows],
            "ends": [chunk.char_end for _, _, chunk in rows],
            "hashes": [item.input_sha256.hex() for item, _, _ in rows],
            "vectors": [_literal(chunk.vector) for _, _, chunk in rows],
        },
    )


def write_semantic_vectors(connection: Connection, model: EmbeddingModel, embedded: Sequence[Embedded]) -> None:
    """Replace the semantic memories' vectors under the model; each has one, the pooled one."""
    ids = [str(item.target_id) for item in embedded]
    connection.execute(_DROP_SEMANTIC, {"ids": ids, "model_id": model.model_id})
    connection.execute(
        _ADD_SEMANTIC,
        {
            "model_id": model.model_id,
            "ids": ids,
            "agents": [item.agent_id for item in embedded],
            "hashes": [item.input_sha256.hex() for item in embedded],
            "vectors": [_literal(item.pooled) for item in embedded],
        },
    )


def write_pooled(connection: Connection, kind: TargetKind, model: EmbeddingModel, embedded: Sequence[Embedded]) -> None:
    """Write the pooled vector, its version and the hash of its input onto the targets' rows, if the model is the active one."""
    connection.execute(
        _SET_POOLED[kind],
        {
            "model_id": model.model_id,
            "version": model.version,
            "ids": [str(item.target_id) for item in embedded],
            "vectors": [_literal(item.pooled) for item in embedded],
            "hashes": [item.input_sha256.hex() for item in embedded],
        },
    )
