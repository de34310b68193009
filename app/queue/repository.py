"""All SQL on the queue. Every transition proves its claim by the token; times are PostgreSQL's; lock order is episode, then queue row."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

from app.queue.models import ClaimedRow, QueueCounts, TargetKind

# One dispatcher at a time counts and claims, so that several do not each spend the same room. Reads ix_embeddings_queue_ready up
# to the limit and ix_embeddings_queue_processing, which is as long as the window: flat at any depth.
_TRY_WINDOW = text("SELECT pg_try_advisory_xact_lock(hashtext('nexus queue window'))")
_CLAIM = text(
    """
    WITH room AS (
        SELECT least(:most, :rows_per_slot * coalesce(sum(w.slots), 0)
                     - (SELECT count(*) FROM memory_system.embeddings_queue WHERE state = 'processing')) AS rows
        FROM memory_system.workers w
        WHERE w.kind = 'worker' AND w.heartbeat_at > now() - make_interval(secs => :silence_seconds)
    ), picked AS MATERIALIZED (
        SELECT target_kind, target_id, model_id FROM memory_system.embeddings_queue
        WHERE state = 'pending' AND due_at <= now()
        ORDER BY priority, due_at, target_id
        LIMIT greatest(0, (SELECT rows FROM room))
        FOR UPDATE SKIP LOCKED
    )
    UPDATE memory_system.embeddings_queue q
    SET state = 'processing', claim_token = :token, started_at = NULL, lease_until = now() + make_interval(secs => :lease_seconds)
    FROM picked p
    WHERE q.target_kind = p.target_kind AND q.target_id = p.target_id AND q.model_id = p.model_id
    RETURNING q.target_kind, q.target_id, q.input_chars, q.priority, q.solo
    """
)

# The attempt is charged here, so that a crash counts and a lost message does not. A second delivery matches no row.
_START = text(
    """
    WITH picked AS MATERIALIZED (
        SELECT target_kind, target_id, model_id FROM memory_system.embeddings_queue
        WHERE target_kind = :target_kind AND target_id = ANY (CAST(:target_ids AS uuid[])) AND claim_token = :token
          AND state = 'processing' AND started_at IS NULL AND retry_count < :max_attempts
        ORDER BY target_id FOR UPDATE SKIP LOCKED
    )
    UPDATE memory_system.embeddings_queue q
    SET started_at = now(), lease_until = now() + make_interval(secs => :lease_seconds), retry_count = q.retry_count + 1
    FROM picked p
    WHERE q.target_kind = p.target_kind AND q.target_id = p.target_id AND q.model_id = p.model_id
    RETURNING q.target_id, q.agent_id, q.model_id, q.retry_count, q.traceparent
    """
)

# SKIP LOCKED, in id order: a client that holds a row of the queue is replacing that work, and a worker that waited for it while it
# held others would deadlock with a transaction that edits several episodes. What is skipped belongs to the client, or to the lease.
_HELD = """
    WITH held AS MATERIALIZED (
        SELECT target_kind, target_id, model_id FROM memory_system.embeddings_queue
        WHERE target_kind = :target_kind AND target_id = ANY (CAST(:target_ids AS uuid[])) AND claim_token = :token
          AND state = 'processing'
        ORDER BY target_id FOR UPDATE SKIP LOCKED
    )
    UPDATE memory_system.embeddings_queue q
"""
_OF_HELD = "FROM held h WHERE q.target_kind = h.target_kind AND q.target_id = h.target_id AND q.model_id = h.model_id"

_RENEW = text(f"{_HELD} SET lease_until = now() + make_interval(secs => :lease_seconds) {_OF_HELD}")

_OWNED = text(
    """
    SELECT target_id FROM memory_system.embeddings_queue
    WHERE target_kind = :target_kind AND target_id = ANY (CAST(:target_ids AS uuid[])) AND claim_token = :token AND state = 'processing'
    ORDER BY target_id FOR UPDATE
    """
)

_DONE = text(
    """
    UPDATE memory_system.embeddings_queue
    SET state = 'done', claim_token = NULL, started_at = NULL, lease_until = NULL, last_error = NULL, solo = false, processed_at = now()
    WHERE target_kind = :target_kind AND target_id = ANY (CAST(:target_ids AS uuid[])) AND claim_token = :token AND state = 'processing'
    """
)

# A charge that is kept means a wait that grows: base * 4^(attempt - 1), at most the maximum, spread by a quarter either way.
_FAIL = text(
    f"""
    {_HELD}
    SET state = CASE WHEN q.retry_count >= :max_attempts THEN 'dead' ELSE 'pending' END,
        due_at = now() + (0.75 + random() / 2)
            * make_interval(secs => least(:retry_max_seconds, :retry_base_seconds * 4.0 ^ (q.retry_count - 1))),
        claim_token = NULL, started_at = NULL, lease_until = NULL, solo = q.solo OR :solo, last_error = :error,
        processed_at = CASE WHEN q.retry_count >= :max_attempts THEN now() END
    {_OF_HELD}
    RETURNING q.target_id, q.state
    """
)

_REFUND = text(
    f"""
    {_HELD}
    SET state = 'pending', due_at = now() + make_interval(secs => :delay_seconds), claim_token = NULL, lease_until = NULL,
        retry_count = greatest(0, q.retry_count - CASE WHEN q.started_at IS NULL THEN 0 ELSE 1 END), started_at = NULL,
        solo = q.solo OR :solo, last_error = coalesce(:error, q.last_error)
    {_OF_HELD}
    RETURNING q.target_id
    """
)

# A crash takes down a whole batch and one row at most is to blame, so each started row goes on alone, at once and charged.
_CRASHED = """
    SET state = CASE WHEN q.started_at IS NOT NULL AND q.retry_count >= :max_attempts THEN 'dead' ELSE 'pending' END,
        due_at = now(), solo = q.solo OR q.started_at IS NOT NULL,
        last_error = CASE WHEN q.started_at IS NULL THEN q.last_error ELSE :error END,
        processed_at = CASE WHEN q.started_at IS NOT NULL AND q.retry_count >= :max_attempts THEN now() END,
        claim_token = NULL, started_at = NULL, lease_until = NULL
"""
_CRASH = text(f"{_HELD} {_CRASHED} {_OF_HELD} RETURNING q.target_id, q.state")
_REAP = text(
    f"""
    WITH expired AS MATERIALIZED (
        SELECT target_kind, target_id, model_id FROM memory_system.embeddings_queue
        WHERE state = 'processing' AND lease_until < now()
        ORDER BY target_id LIMIT 1000 FOR UPDATE SKIP LOCKED
    )
    UPDATE memory_system.embeddings_queue q {_CRASHED}
    FROM expired e
    WHERE q.target_kind = e.target_kind AND q.target_id = e.target_id AND q.model_id = e.model_id
    RETURNING q.target_id, q.state
    """
)

_COUNTS = text("SELECT * FROM memory_system.queue_counts(:agent_id)")


def claim(
    connection: Connection, token: UUID, *, most: int, rows_per_slot: int, lease_seconds: float, silence_seconds: float
) -> list[ClaimedRow]:
    """Take due rows, most urgent and oldest first, as many as there is room for in the window.

    Empty when nothing is due, when the workers have enough, or when another dispatcher is claiming.
    """
    if not connection.execute(_TRY_WINDOW).scalar_one():
        return []
    rows = connection.execute(
        _CLAIM,
        {
            "token": token,
            "most": most,
            "rows_per_slot": rows_per_slot,
            "lease_seconds": lease_seconds,
            "silence_seconds": silence_seconds,
        },
    )
    return [ClaimedRow(row.target_kind, row.target_id, row.input_chars, row.priority, row.solo) for row in rows]


def _proof(target_kind: TargetKind, target_ids: Sequence[UUID], token: UUID) -> dict[str, object]:
    return {"target_kind": target_kind, "target_ids": list(map(str, target_ids)), "token": token}


def start(
    connection: Connection, target_kind: TargetKind, target_ids: Sequence[UUID], token: UUID, *, lease_seconds: float, max_attempts: int
) -> dict[UUID, tuple[str, int, int, str | None]]:
    """Charge one attempt to each row still claimed by the token and return (agent_id, model_id, attempt, traceparent) by id."""
    rows = connection.execute(
        _START, {**_proof(target_kind, target_ids, token), "lease_seconds": lease_seconds, "max_attempts": max_attempts}
    )
    return {row.target_id: (row.agent_id, row.model_id, row.retry_count, row.traceparent) for row in rows}


def renew(connection: Connection, target_kind: TargetKind, target_ids: Sequence[UUID], token: UUID, lease_seconds: float) -> int:
    """Extend the leases and return of how many rows; one that a client is changing is left out."""
    return connection.execute(_RENEW, {**_proof(target_kind, target_ids, token), "lease_seconds": lease_seconds}).rowcount


def lock_owned(connection: Connection, target_kind: TargetKind, target_ids: Sequence[UUID], token: UUID) -> set[UUID]:
    """Lock the rows that the token still holds and return their ids. The caller holds the targets' row locks already."""
    return {row[0] for row in connection.execute(_OWNED, _proof(target_kind, target_ids, token))}


def mark_done(connection: Connection, target_kind: TargetKind, target_ids: Sequence[UUID], token: UUID) -> None:
    """Finish rows; their vectors are written in the same transaction. retry_count stays, as a record of what it took."""
    connection.execute(_DONE, _proof(target_kind, target_ids, token))


def fail(
    connection: Connection,
    target_kind: TargetKind,
    target_ids: Sequence[UUID],
    token: UUID,
    *,
    error: str,
    solo: bool,
    max_attempts: int,
    retry_base_seconds: float,
    retry_max_seconds: float,
) -> dict[UUID, str]:
    """Keep the charge: each row waits longer than before, or is dead. Returns the new state by id, without rows locked elsewhere."""
    rows = connection.execute(
        _FAIL,
        {
            **_proof(target_kind, target_ids, token),
            "error": error,
            "solo": solo,
            "max_attempts": max_attempts,
            "retry_base_seconds": retry_base_seconds,
            "retry_max_seconds": retry_max_seconds,
        },
    )
    return {row.target_id: row.state for row in rows}


def refund(
    connection: Connection,
    target_kind: TargetKind,
    target_ids: Sequence[UUID],
    token: UUID,
    *,
    delay_seconds: float,
    error: str | None = None,
    solo: bool = False,
) -> int:
    """Put rows back without the charge, due after the delay, and return how many."""
    parameters = {**_proof(target_kind, target_ids, token), "delay_seconds": delay_seconds, "error": error, "solo": solo}
    return len(connection.execute(_REFUND, parameters).all())


def crash(
    connection: Connection, target_kind: TargetKind, target_ids: Sequence[UUID], token: UUID, *, error: str, max_attempts: int
) -> dict[UUID, str]:
    """Take rows back from a worker that died: started ones charged and alone from now on. Returns the new state by id."""
    rows = connection.execute(_CRASH, {**_proof(target_kind, target_ids, token), "error": error, "max_attempts": max_attempts})
    return {row.target_id: row.state for row in rows}


def reap(connection: Connection, *, max_attempts: int) -> dict[UUID, str]:
    """Take back up to 1,000 rows whose lease ran out and return their new states by id; rows locked elsewhere wait for the next time."""
    rows = connection.execute(_REAP, {"max_attempts": max_attempts, "error": "lease_expired: the worker fell silent"})
    return {row.target_id: row.state for row in rows}


def counts(connection: Connection, agent_id: str | None) -> QueueCounts:
    """Return the rows by state of one agent, or of all."""
    row = connection.execute(_COUNTS, {"agent_id": agent_id}).one()
    return QueueCounts(row.pending, row.processing, row.done, row.dead, float(row.oldest_pending_seconds))
