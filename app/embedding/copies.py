"""Brings the one-vector copies on the memories' rows up to the active model, from the vectors that are stored."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from sqlalchemy import Connection, text

from app.embedding import repository
from app.embedding.chunking import pool
from app.embedding.models import ChunkVector, Embedded, EmbeddingModel

_STALE_COPIES = text(
    """
    SELECT e.episode_id, e.agent_id, e.input_sha256, c.char_start, c.char_end, c.embedding::text AS vector
    FROM (SELECT s.episode_id, s.agent_id, s.input_sha256 FROM nexus_memory.zep_episodic_memory s
          WHERE s.embedding_version IS DISTINCT FROM :version
            AND EXISTS (SELECT 1 FROM nexus_memory.episode_chunks k
                        WHERE k.episode_id = s.episode_id AND k.model_id = :model_id AND k.input_sha256 = s.input_sha256)
          LIMIT :most) e
    JOIN nexus_memory.episode_chunks c ON c.episode_id = e.episode_id AND c.model_id = :model_id AND c.input_sha256 = e.input_sha256
    ORDER BY e.episode_id, c.chunk_no
    """
)


_RENEW_SEMANTIC = text(
    """
    UPDATE nexus_memory.semantic_memories s
    SET embedding = v.embedding, embedding_version = :version, embedding_sha256 = v.input_sha256
    FROM (SELECT k.memory_id FROM nexus_memory.semantic_memories k
          JOIN nexus_memory.semantic_vectors kv
              ON kv.memory_id = k.memory_id AND kv.model_id = :model_id AND kv.input_sha256 = k.input_sha256
          WHERE k.embedding_version IS DISTINCT FROM :version
          ORDER BY k.memory_id LIMIT :most FOR NO KEY UPDATE OF k) stale
    JOIN nexus_memory.semantic_vectors v ON v.memory_id = stale.memory_id AND v.model_id = :model_id
    WHERE s.memory_id = stale.memory_id AND v.input_sha256 = s.input_sha256
    """
)


def renew_episodes(connection: Connection, model: EmbeddingModel, most: int) -> int:
    """Renew the copies of up to `most` episodes that have another model's, and return how many; 0 when none is left.

    Args:
        connection: In a transaction of nexus_worker.
        model: The active model.
        most: How many episodes at once.
    """
    stale = _grouped(connection.execute(_STALE_COPIES, {"version": model.version, "model_id": model.model_id, "most": most}))
    if stale:
        repository.write_pooled(connection, "episodic", model, stale)
    return len(stale)


def renew_semantic(connection: Connection, model: EmbeddingModel, most: int) -> int:
    """Renew the copies of up to `most` semantic memories that have another model's, and return how many; 0 when none is left.

    Args:
        connection: In a transaction of nexus_worker.
        model: The active model.
        most: How many memories at once.
    """
    return connection.execute(_RENEW_SEMANTIC, {"version": model.version, "model_id": model.model_id, "most": most}).rowcount


def _grouped(rows: Iterable[Any]) -> list[Embedded]:
    """Return each episode of the rows with its chunks and their pooled vector; no order."""
    episodes: dict[UUID, tuple[Any, list[ChunkVector]]] = {}
    for row in rows:
        chunk = ChunkVector(row.char_start, row.char_end, np.array(orjson.loads(row.vector), dtype=np.float32))
        episodes.setdefault(row.episode_id, (row, []))[1].append(chunk)
    return [_pooled(row, chunks) for row, chunks in episodes.values()]


def _pooled(row: Any, chunks: Sequence[ChunkVector]) -> Embedded:
    mean = pool(np.stack([chunk.vector for chunk in chunks]), [chunk.char_end - chunk.char_start for chunk in chunks])
    return Embedded(row.episode_id, row.agent_id, bytes(row.input_sha256), tuple(chunks), mean)
