"""All SQL of reconciliation: digests of ranges, the rows of those that differ, and the record of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, TextClause, text

from app.queue.models import TargetKind
from app.reconcile.drift import Expected
from app.working.models import ContextView

# Only what should be in Redis: it has an end, and more than five seconds until then, so that it cannot run out while both sides are asked.
_CACHED = "w.expires_at > now() + interval '5 seconds'"

# The first and the last seq from some number on; both are null when there is none. Two subqueries, each one step in an index.
_BOUNDS = (
    "SELECT (SELECT min(seq) FROM nexus_memory.{table} WHERE seq >= :start) AS first,"
    " (SELECT max(seq) FROM nexus_memory.{table} WHERE seq >= :start) AS last"
)
_CONTEXT_BOUNDS = text(_BOUNDS.format(table="working_memory_contexts"))
# One row for each 1,000 contexts: their keys, and one digest. The hashes stay here.
_CONTEXT_DIGESTS = text(
    f"""
    SELECT array_agg(n.agent_id ORDER BY n.seq) AS agent_ids, array_agg(n.context_id ORDER BY n.seq) AS context_ids,
           array_agg((extract(epoch FROM n.expires_at) * 1000)::bigint ORDER BY n.seq) AS expires_ms, count(n.cache_sha1) AS hashed,
           bit_xor(('x' || encode(n.cache_sha1, 'hex'))::bit(160))::text AS digest
    FROM (
        SELECT w.*, (row_number() OVER (ORDER BY w.seq) - 1) / :portion AS portion
        FROM nexus_memory.working_memory_contexts w WHERE w.seq BETWEEN :first AND :last AND {_CACHED}
    ) n
    GROUP BY n.portion ORDER BY n.portion
    """
)
_EXPECTED = text(
    f"""
    SELECT w.agent_id, w.context_id, w.cache_sha1, w.expires_at FROM nexus_memory.working_memory_contexts w
    JOIN unnest(CAST(:agent_ids AS text[]), CAST(:context_ids AS text[])) AS k (agent_id, context_id)
        ON k.agent_id = w.agent_id AND k.context_id = w.context_id
    WHERE {_CACHED}
    """
)
_KNOWN = text(
    """
    SELECT w.agent_id, w.context_id FROM nexus_memory.working_memory_contexts w
    JOIN unnest(CAST(:agent_ids AS text[]), CAST(:context_ids AS text[])) AS k (agent_id, context_id)
        ON k.agent_id = w.agent_id AND k.context_id = w.context_id
    WHERE w.expires_at > now()
    """
)
_VIEWS = text(
    """
    SELECT w.agent_id, w.context_id, w.seq, w.session_id, w.context_type, w.active_content, w.priority, w.ttl_seconds, w.expires_at,
           w.created_at, w.updated_at
    FROM nexus_memory.working_memory_contexts w
    JOIN unnest(CAST(:agent_ids AS text[]), CAST(:context_ids AS text[])) AS k (agent_id, context_id)
        ON k.agent_id = w.agent_id AND k.context_id = w.context_id
    WHERE w.expires_at > now() ORDER BY w.seq
    """
)
# Only if nobody changed the row since it was read: its writer knows better.
_SET_HASHES = text(
    """
    UPDATE nexus_memory.working_memory_contexts w SET cache_sha1 = decode(h.hash, 'hex')
    FROM unnest(CAST(:seqs AS bigint[]), CAST(:changed AS timestamptz[]), CAST(:hashes AS text[])) AS h (seq, updated_at, hash)
    WHERE w.seq = h.seq AND w.updated_at = h.updated_at AND w.cache_sha1 IS DISTINCT FROM decode(h.hash, 'hex')
    """
)
_SWEEP = text(
    """
    DELETE FROM nexus_memory.working_memory_contexts w USING (
        SELECT agent_id, context_id FROM nexus_memory.working_memory_contexts
        WHERE expires_at < now() - interval '1 minute' ORDER BY expires_at LIMIT :most FOR UPDATE SKIP LOCKED
    ) e WHERE w.agent_id = e.agent_id AND w.context_id = e.context_id
    """
)

# stale: a vector of another input; missing: none of the present input, and no work that will make one; torn: the vector is there
# and the memory's row does not say so; altered: its vectors are not those that were computed, looked for only when asked.
_VECTOR_DRIFT = """
    SELECT t.{key} AS id, CASE
            WHEN CAST(:deep AS boolean) AND NOT {is_intact} THEN 'altered'
            WHEN v.has_stale THEN 'stale'
            WHEN NOT coalesce(v.has_fresh, false) AND coalesce(q.state, 'done') = 'done' THEN 'missing'
            WHEN v.has_fresh AND t.embedding_sha256 IS DISTINCT FROM t.input_sha256 AND coalesce(q.state, 'done') = 'done' THEN 'torn'
        END AS drift
    FROM nexus_memory.{table} t
    JOIN memory_system.embedding_models m ON m.is_active
    LEFT JOIN memory_system.embeddings_queue q ON q.target_kind = '{kind}' AND q.target_id = t.{key} AND q.model_id = m.model_id
    LEFT JOIN LATERAL (
        SELECT bool_or(c.input_sha256 = t.input_sha256) AS has_fresh, bool_or(c.input_sha256 <> t.input_sha256) AS has_stale
        FROM nexus_memory.{vectors} c WHERE c.{key} = t.{key} AND c.model_id = m.model_id
    ) v ON true
    WHERE t.seq BETWEEN :first AND :last
"""
_TABLES: dict[TargetKind, dict[str, str]] = {
    "episodic": {
        "table": "zep_episodic_memory",
        "key": "episode_id",
        "vectors": "episode_chunks",
        "is_intact": "nexus_memory.chunks_are_intact(t.episode_id, t.agent_id, char_length(t.content), t.input_sha256, t.embedding,"
        " t.embedding_version, m)",
    },
    "semantic": {
        "table": "semantic_memories",
        "key": "memory_id",
        "vectors": "semantic_vectors",
        "is_intact": "nexus_memory.semantic_vector_is_intact(t.memory_id, t.agent_id, t.input_sha256, t.embedding, t.embedding_version, m)",
    },
}
_DRIFTS = {kind: _VECTOR_DRIFT.format(kind=kind, **names) for kind, names in _TABLES.items()}
_MEMORY_BOUNDS = {kind: text(_BOUNDS.format(table=names["table"])) for kind, names in _TABLES.items()}
_COUNT_VECTOR_DRIFT = {kind: text(f"SELECT count(d.drift) FROM ({drift}) d") for kind, drift in _DRIFTS.items()}
_LIST_VECTOR_DRIFT = {
    kind: text(f"SELECT d.id, d.drift FROM ({drift}) d WHERE d.drift IS NOT NULL ORDER BY d.id") for kind, drift in _DRIFTS.items()
}
_REPAIR_VECTORS: dict[TargetKind, TextClause] = {
    "episodic": text("SELECT memory_system.repair_vectors(CAST(:ids AS uuid[]))"),
    "semantic": text("SELECT memory_system.repair_semantic_vectors(CAST(:ids AS uuid[]))"),
}

_BEGIN = text("INSERT INTO memory_system.reconciliation_runs (kind, dry_run) VALUES (:kind, :dry_run) RETURNING run_id")
_END = text(
    """
    UPDATE memory_system.reconciliation_runs SET finished_at = now(), ranges_compared = :ranges_compared,
        ranges_different = :ranges_different, found = CAST(:found AS jsonb), repaired = CAST(:repaired AS jsonb), error = :error
    WHERE run_id = :run_id
    """
)
_RUNS = text(
    "SELECT run_id, kind, started_at, finished_at, dry_run, ranges_compared, ranges_different, found, repaired, error"
    " FROM memory_system.reconciliation_runs ORDER BY started_at DESC LIMIT :most"
)


@dataclass(frozen=True, slots=True)
class Portion:
    """At most 1,000 contexts as PostgreSQL has them: their keys, when each ends (ms since 1970), and the digest over their hashes.

    `xor` is None where no row has a hash; `hashed` counts those that have.
    """

    contexts: list[tuple[str, str]]
    expires_ms: list[int]
    hashed: int
    xor: bytes | None


@dataclass(frozen=True, slots=True)
class Run:
    """One reconciliation as it was recorded; `finished_at` is None while it runs, and when its process died."""

    run_id: UUID
    kind: str
    started_at: datetime
    finished_at: datetime | None
    dry_run: bool
    ranges_compared: int
    ranges_different: int
    found: dict[str, int]
    repaired: dict[str, int]
    error: str | None


def context_bounds(connection: Connection, start: int) -> tuple[int, int] | None:
    """Return (first, last) seq of the working memory from a number on; None when there is none."""
    return _bounds(connection, _CONTEXT_BOUNDS, start)


def _bounds(connection: Connection, statement: TextClause, start: int) -> tuple[int, int] | None:
    row = connection.execute(statement, {"start": start}).one()
    return None if row.first is None else (row.first, row.last)


def context_digests(connection: Connection, first: int, last: int, portion: int) -> list[Portion]:
    """Return the portions of a range, in order; empty when nothing of it should be in Redis."""
    portions = []
    for row in connection.execute(_CONTEXT_DIGESTS, {"first": first, "last": last, "portion": portion}):
        xor = None if row.digest is None else int(row.digest, 2).to_bytes(20, "big")
        contexts = list(zip(row.agent_ids, row.context_ids, strict=True))
        portions.append(Portion(contexts, list(row.expires_ms), row.hashed, xor))
    return portions


def _keys(contexts: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"agent_ids": [agent_id for agent_id, _ in contexts], "context_ids": [context_id for _, context_id in contexts]}


def expected(connection: Connection, contexts: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Expected]:
    """Return what PostgreSQL says of contexts, by key; those that are gone, or about to end, are absent."""
    rows = connection.execute(_EXPECTED, _keys(contexts))
    return {
        (row.agent_id, row.context_id): Expected(
            row.agent_id, row.context_id, None if row.cache_sha1 is None else bytes(row.cache_sha1), row.expires_at
        )
        for row in rows
    }


def known(connection: Connection, contexts: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those of the contexts that are live and may be in Redis."""
    return {(row.agent_id, row.context_id) for row in connection.execute(_KNOWN, _keys(contexts))}


def views(connection: Connection, contexts: Sequence[tuple[str, str]]) -> list[ContextView]:
    """Return those of the contexts that are live and have an end."""
    return [ContextView(**row._mapping) for row in connection.execute(_VIEWS, _keys(contexts))]


def set_hashes(connection: Connection, hashes: Sequence[tuple[ContextView, bytes]]) -> None:
    """Note which bytes Redis should hold of contexts, but for those that were changed since they were read."""
    connection.execute(
        _SET_HASHES,
        {
            "seqs": [view.seq for view, _ in hashes],
            "changed": [view.updated_at for view, _ in hashes],
            "hashes": [cache_sha1.hex() for _, cache_sha1 in hashes],
        },
    )


def sweep(connection: Connection, most: int) -> int:
    """Delete up to `most` contexts that ended a minute ago or longer, and return how many."""
    return connection.execute(_SWEEP, {"most": most}).rowcount


def memory_bounds(connection: Connection, kind: TargetKind, start: int) -> tuple[int, int] | None:
    """Return (first, last) seq of the episodes or semantic memories from a number on; None when there is none."""
    return _bounds(connection, _MEMORY_BOUNDS[kind], start)


def count_vector_drift(connection: Connection, kind: TargetKind, first: int, last: int, *, deep: bool) -> int:
    """Return how many memories of a range have something wrong with their vectors, computed where they lie."""
    return int(connection.execute(_COUNT_VECTOR_DRIFT[kind], {"first": first, "last": last, "deep": deep}).scalar_one())


def vector_drift(connection: Connection, kind: TargetKind, first: int, last: int, *, deep: bool) -> dict[UUID, str]:
    """Return what is wrong, by memory; empty when nothing is."""
    rows = connection.execute(_LIST_VECTOR_DRIFT[kind], {"first": first, "last": last, "deep": deep})
    return {row.id: row.drift for row in rows}


def repair_vectors(connection: Connection, kind: TargetKind, ids: Sequence[UUID]) -> int:
    """Delete wrong vectors of the memories, enqueue them, and return how many were enqueued."""
    return int(connection.execute(_REPAIR_VECTORS[kind], {"ids": list(map(str, ids))}).scalar_one())


def begin_run(connection: Connection, kind: str, *, dry_run: bool) -> UUID:
    """Record that a run begins, and return its id."""
    run_id: UUID = connection.execute(_BEGIN, {"kind": kind, "dry_run": dry_run}).scalar_one()
    return run_id


def end_run(connection: Connection, run_id: UUID, values: dict[str, Any]) -> None:
    """Record what a run found."""
    connection.execute(
        _END,
        values | {"run_id": run_id, "found": orjson.dumps(values["found"]).decode(), "repaired": orjson.dumps(values["repaired"]).decode()},
    )


def runs(connection: Connection, most: int) -> list[Run]:
    """Return the latest runs, the latest first."""
    return [Run(**row._mapping) for row in connection.execute(_RUNS, {"most": most})]
