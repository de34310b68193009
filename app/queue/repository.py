"""All SQL on the queue. Every transition proves its claim by the token; times are PostgreSQL's; lock order is episode, then queue row."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from app.queue import tallies
from app.queue.lanes import LANES, Position
from app.queue.models import Claim, ClaimedRow, Finished, QueueCounts

# One dispatcher at a time counts and claims, so that several do not each spend the same room.
_TRY_WINDOW = text("SELECT pg_try_advisory_xact_lock(hashtext('nexus queue window'))")

_OLDEST_CLAIM = text("SELECT coalesce(min(claimed_at), clock_timestamp()) FROM memory_system.embeddings_queue WHERE state = 'processing'")


# Where a claim took the one row that a finished message of one row made room for, it would be a message of one row again: under load
# every message would stay as small as those of the trickle that it began with, and a worker slower by a factor of eight. (TCP has the
# same trouble and cure: RFC 1122, 4.2.3.4, silly window syndrome.)
def _worth_it(free: str, whole: str) -> str:
    """Return how many rows to take of what is free: all, or none until that is a batch, or half of a whole that is small."""
    return f"CASE WHEN {free} >= least(:batch_rows, ceil({whole} / 2.0)) THEN {free} ELSE 0 END"


def _pick(lane: int, reserve: float) -> str:
    """Return the CTE that takes a lane's rows: what the lanes before it left of the window, and never less than its reserve."""
    taken = "".join(f" - (SELECT count(*) FROM lane_{before})" for before in range(lane))
    free, own = "w.rows - h.rows", f"ceil(w.rows * {reserve})"
    left = f"{_worth_it(free, 'w.rows')}{taken}"
    return f"""
    lane_{lane} AS MATERIALIZED (
        SELECT target_kind, target_id, model_id FROM memory_system.embeddings_queue
        WHERE state = 'pending' AND priority = {lane} AND due_at <= now() AND model_id = ANY (SELECT m.model_id FROM in_use m)
          AND (due_at, target_id) > (CAST(:due_{lane} AS timestamptz), CAST(:id_{lane} AS uuid))
        ORDER BY due_at, target_id
        LIMIT (SELECT least(:most, greatest(0, {left}, {_worth_it(f"{own} - h.lane_{lane}", own)}))::bigint
               FROM room w CROSS JOIN held h)
        FOR UPDATE SKIP LOCKED
    )"""


# Reads ix_embeddings_queue_ready from each lane's position to the limit, and ix_embeddings_queue_processing from the oldest claim
# on, which is as long as the window: flat at any depth, and under a held snapshot. clock_timestamp(), because claims take turns
# and now() is from before the turn: claimed_at must grow from claim to claim.
# A row in flight has at most one message. What lies in the broker beyond that is of claims that have ended, and takes room until
# a worker has read it: a worker that reads nothing would otherwise let it grow from lease to lease.
_CLAIM = text(
    f"""
    WITH in_use AS MATERIALIZED (
        SELECT model_id FROM memory_system.embedding_models WHERE is_active OR is_target
    ), held AS (
        SELECT count(*) AS rows, {", ".join(f"count(*) FILTER (WHERE priority = {lane.number}) AS lane_{lane.number}" for lane in LANES)}
        FROM memory_system.embeddings_queue WHERE state = 'processing' AND claimed_at >= CAST(:oldest_claim AS timestamptz)
    ), at_work AS (
        SELECT coalesce(sum(slots), 0) AS slots FROM memory_system.workers
        WHERE kind = 'worker' AND heartbeat_at > now() - make_interval(secs => :silence_seconds)
    ), room AS (
        SELECT greatest(0, :rows_per_slot * w.slots - CASE WHEN :unread > 0 THEN
            greatest(0, :unread + :messages_per_slot * w.slots - h.rows) ELSE 0 END) AS rows
        FROM at_work w CROSS JOIN held h
    ),{",".join(_pick(lane.number, lane.reserve) for lane in LANES)}
    UPDATE memory_system.embeddings_queue q
    SET state = 'processing', claim_token = :token, claimed_at = clock_timestamp(), started_at = NULL,
        lease_until = now() + make_interval(secs => :lease_seconds)
    FROM ({" UNION ALL ".join(f"SELECT * FROM lane_{lane.number}" for lane in LANES)}) p
    WHERE q.target_kind = p.target_kind AND q.target_id = p.target_id AND q.model_id = p.model_id
    RETURNING q.target_kind, q.target_id, q.model_id, q.input_chars, q.priority, q.solo, q.due_at
    """
)

_OF_CLAIM = """
    target_kind = :target_kind AND target_id = ANY (CAST(:target_ids AS uuid[])) AND model_id = :model_id AND claim_token = :token
        AND state = 'processing'"""


# SKIP LOCKED, in id order: a client that holds a row of the queue is replacing that work, and a worker that waited for it while it
# held others would deadlock with a transaction that edits several episodes. What is skipped belongs to the client, or to the lease.
def _held(condition: str = "true") -> str:
    return f"""
    WITH held AS MATERIALIZED (
        SELECT target_kind, target_id, model_id FROM memory_system.embeddings_queue
        WHERE {_OF_CLAIM} AND {condition}
        ORDER BY target_id FOR UPDATE SKIP LOCKED
    )
    UPDATE memory_system.embeddings_queue q
"""


_JOIN_HELD = "FROM held h WHERE q.target_kind = h.target_kind AND q.target_id = h.target_id AND q.model_id = h.model_id"

# The attempt is charged here, so that a crash counts and a lost message does not. A second delivery matches no row.
_START = text(
    f"""
    {_held("started_at IS NULL AND retry_count < :max_attempts")}
    SET started_at = now(), lease_until = now() + make_interval(secs => :lease_seconds), retry_count = q.retry_count + 1
    {_JOIN_HELD}
    RETURNING q.target_id, q.agent_id, q.retry_count, q.solo, q.traceparent
    """
)

_RENEW = text(f"{_held()} SET lease_until = now() + make_interval(secs => :lease_seconds) {_JOIN_HELD}")

# Started, because a crash of PostgreSQL can lose a start that did not wait for the disk and keep the claim before it: such a row
# was never charged as far as anybody knows, so it goes back and is done again.
_OWNED = text(
    f"SELECT target_id FROM memory_system.embeddings_queue WHERE {_OF_CLAIM} AND started_at IS NOT NULL ORDER BY target_id FOR UPDATE"
)

# The times are those that the update takes away. A vector of a migration's target makes nothing searchable yet.
_DONE = text(
    f"""
    WITH held AS MATERIALIZED (
        SELECT target_id AS id, started_at AS began, enqueued_at AS enqueued FROM memory_system.embeddings_queue WHERE {_OF_CLAIM}
    )
    UPDATE memory_system.embeddings_queue
    SET state = 'done', claim_token = NULL, started_at = NULL, lease_until = NULL, last_error = NULL, solo = false, processed_at = now()
    FROM held h
    WHERE {_OF_CLAIM} AND target_id = h.id
    RETURNING greatest(0, extract(epoch FROM clock_timestamp() - h.began))::double precision AS processing,
        CASE WHEN EXISTS (SELECT FROM memory_system.embedding_models m WHERE m.model_id = :model_id AND m.is_active)
             THEN greatest(0, extract(epoch FROM clock_timestamp() - h.enqueued))::double precision END AS searchable
    """
)

# A charge that is kept means a wait that grows: base * 4^(attempt - 1), at most the maximum, spread by a quarter either way.
_FAIL = text(
    f"""
    {_held()}
    SET state = CASE WHEN q.retry_count >= :max_attempts THEN 'dead' ELSE 'pending' END,
        due_at = now() + (0.75 + random() / 2)
            * make_interval(secs => least(:retry_max_seconds, :retry_base_seconds * 4.0 ^ (q.retry_count - 1))),
        claim_token = NULL, started_at = NULL, lease_until = NULL, last_error = :error,
        processed_at = CASE WHEN q.retry_count >= :max_attempts THEN now() END
    {_JOIN_HELD}
    RETURNING q.target_id, q.state
    """
)

_REFUND = text(
    f"""
    {_held()}
    SET state = 'pending', due_at = now() + make_interval(secs => :delay_seconds), claim_token = NULL, lease_until = NULL,
        retry_count = greatest(0, q.retry_count - CASE WHEN q.started_at IS NULL THEN 0 ELSE 1 END), started_at = NULL,
        solo = q.solo OR :solo, last_error = coalesce(:error, q.last_error)
    {_JOIN_HELD}
    RETURNING q.target_id
    """
)

# due_at stays, so that the rows keep their place.
_GIVE_BACK = text(
    f"{_held('started_at IS NULL')} SET state = 'pending', claim_token = NULL, lease_until = NULL {_JOIN_HELD} RETURNING q.target_id"
)

# A crash takes down a whole batch and one row at most is to blame, so each started row goes on alone, at once and charged. One that
# nobody has started keeps its place.
_CRASHED = """
    SET state = CASE WHEN q.started_at IS NOT NULL AND q.retry_count >= :max_attempts THEN 'dead' ELSE 'pending' END,
        due_at = CASE WHEN q.started_at IS NULL THEN q.due_at ELSE now() END, solo = q.solo OR q.started_at IS NOT NULL,
        last_error = CASE WHEN q.started_at IS NULL THEN q.last_error ELSE :error END,
        processed_at = CASE WHEN q.started_at IS NOT NULL AND q.retry_count >= :max_attempts THEN now() END,
        claim_token = NULL, started_at = NULL, lease_until = NULL
"""
_CRASH = text(f"{_held()} {_CRASHED} {_JOIN_HELD} RETURNING q.target_id, q.state")

# While PostgreSQL was down nobody could renew a lease: its workers get the time to, before the first is taken for dead.
_REAP = text(
    f"""
    WITH expired AS MATERIALIZED (
        SELECT target_kind, target_id, model_id FROM memory_system.embeddings_queue
        WHERE state = 'processing' AND lease_until < now()
          AND pg_postmaster_start_time() < now() - make_interval(secs => :grace_seconds)
        ORDER BY target_id LIMIT 1000 FOR UPDATE SKIP LOCKED
    )
    UPDATE memory_system.embeddings_queue q {_CRASHED}
    FROM expired e
    WHERE q.target_kind = e.target_kind AND q.target_id = e.target_id AND q.model_id = e.model_id
    RETURNING q.target_id, q.state
    """
)

_COUNTS = text("SELECT * FROM memory_system.queue_counts(:agent_id)")

_BEFORE_ALL = {"due": "-infinity", "id": str(UUID(int=0))}


def enter_window(connection: Connection) -> bool:
    """Return whether this transaction may claim; False while another dispatcher does."""
    return bool(connection.execute(_TRY_WINDOW).scalar_one())


def oldest_claim(connection: Connection) -> datetime:
    """Return a moment before which no row in flight was claimed. Call it inside the window."""
    moment: datetime = connection.execute(_OLDEST_CLAIM).scalar_one()
    return moment


def claim(
    connection: Connection,
    token: UUID,
    *,
    after: Mapping[int, Position],
    oldest_claim: datetime | None,
    most: int,
    unread: int,
    messages_per_slot: int,
    rows_per_slot: int,
    batch_rows: int,
    lease_seconds: float,
    silence_seconds: float,
) -> list[ClaimedRow]:
    """Take due rows, most urgent and oldest first, as many as there is room for in the window. Call it inside the window.

    Args:
        connection: In the transaction that entered the window.
        token: Proves the claim.
        after: By lane, the row after which to look; a lane that is absent is looked through from its start.
        oldest_claim: No row in flight was claimed before; None counts all of them.
        most: Most rows of one lane.
        unread: Messages in the broker that no worker has taken.
        messages_per_slot: How many messages a worker may have taken and not answered for each of its slots.
        rows_per_slot: Rows in flight for each slot of a live worker.
        batch_rows: Most rows of a message: what should be free before more are taken.
        lease_seconds: How long the claim holds without a heartbeat.
        silence_seconds: Silence after which a worker counts as gone.

    Returns:
        The rows in no order; empty when nothing is due or the workers have enough.
    """
    positions: dict[str, object] = {}
    for lane in LANES:
        due_at, target_id = after.get(lane.number, (_BEFORE_ALL["due"], _BEFORE_ALL["id"]))
        positions |= {f"due_{lane.number}": due_at, f"id_{lane.number}": str(target_id)}
    rows = connection.execute(
        _CLAIM,
        {
            **positions,
            "token": token,
            "oldest_claim": oldest_claim or "-infinity",
            "most": most,
            "batch_rows": batch_rows,
            "unread": unread,
            "messages_per_slot": messages_per_slot,
            "rows_per_slot": rows_per_slot,
            "lease_seconds": lease_seconds,
            "silence_seconds": silence_seconds,
        },
    )
    return [ClaimedRow(r.target_kind, r.target_id, r.model_id, r.input_chars, r.priority, r.solo, r.due_at) for r in rows]


def _proof(claim: Claim) -> dict[str, object]:
    return {
        "target_kind": claim.target_kind,
        "model_id": claim.model_id,
        "target_ids": list(map(str, claim.target_ids)),
        "token": claim.token,
    }


def start(
    connection: Connection, claim: Claim, *, lease_seconds: float, max_attempts: int
) -> dict[UUID, tuple[str, int, bool, str | None]]:
    """Charge one attempt to each row still claimed and not yet started, and return (agent_id, attempt, solo, traceparent) by id."""
    rows = connection.execute(_START, {**_proof(claim), "lease_seconds": lease_seconds, "max_attempts": max_attempts})
    return {row.target_id: (row.agent_id, row.retry_count, row.solo, row.traceparent) for row in rows}


def renew(connection: Connection, claim: Claim, lease_seconds: float) -> int:
    """Extend the leases and return of how many rows; one that a client is changing is left out."""
    return connection.execute(_RENEW, {**_proof(claim), "lease_seconds": lease_seconds}).rowcount


def lock_owned(connection: Connection, claim: Claim) -> set[UUID]:
    """Lock the rows that the token still holds and return their ids. The caller holds the targets' row locks already."""
    return {row[0] for row in connection.execute(_OWNED, _proof(claim))}


def mark_done(connection: Connection, claim: Claim) -> None:
    """Finish rows and count them; their vectors are written in the same transaction. retry_count stays, as a record of what it took."""
    rows = connection.execute(_DONE, _proof(claim))
    tallies.count_done(connection, claim.target_kind, [Finished(row.processing, row.searchable) for row in rows])


def fail(
    connection: Connection, claim: Claim, *, error: str, max_attempts: int, retry_base_seconds: float, retry_max_seconds: float
) -> dict[UUID, str]:
    """Keep the charge: each row waits longer than before, or is dead. Returns the new state by id, without rows locked elsewhere."""
    rows = connection.execute(
        _FAIL,
        {
            **_proof(claim),
            "error": error,
            "max_attempts": max_attempts,
            "retry_base_seconds": retry_base_seconds,
            "retry_max_seconds": retry_max_seconds,
        },
    )
    return _taken_back(connection, rows, error)


def refund(connection: Connection, claim: Claim, *, delay_seconds: float, error: str | None = None, solo: bool = False) -> int:
    """Put rows back without the charge, due after the delay, and return how many."""
    parameters = {**_proof(claim), "delay_seconds": delay_seconds, "error": error, "solo": solo}
    return len(connection.execute(_REFUND, parameters).all())


def give_back(connection: Connection, claim: Claim) -> int:
    """Put back, at once and in their old place, the rows that nobody has started, and return how many."""
    return len(connection.execute(_GIVE_BACK, _proof(claim)).all())


def crash(connection: Connection, claim: Claim, *, error: str, max_attempts: int) -> dict[UUID, str]:
    """Take rows back from a worker that died: started ones charged and alone from now on. Returns the new state by id."""
    rows = connection.execute(_CRASH, {**_proof(claim), "error": error, "max_attempts": max_attempts})
    return _taken_back(connection, rows, error)


def reap(connection: Connection, *, max_attempts: int, grace_seconds: float) -> dict[UUID, str]:
    """Take back up to 1,000 rows whose lease ran out and return their new states by id; rows locked elsewhere wait for the next time.

    Args:
        connection: In a transaction.
        max_attempts: Attempts after which a started row is dead.
        grace_seconds: No lease counts as run out for so long after PostgreSQL's start.
    """
    error = "lease_expired: the worker fell silent"
    rows = connection.execute(_REAP, {"max_attempts": max_attempts, "grace_seconds": grace_seconds, "error": error})
    return _taken_back(connection, rows, error)


def _taken_back(connection: Connection, rows: Iterable[Any], error: str) -> dict[UUID, str]:
    """Return the new states by id, and count those that are dead of the error."""
    moved = list(rows)
    tallies.count_dead(connection, (row.state for row in moved), error)
    return {row.target_id: row.state for row in moved}


def counts(connection: Connection, agent_id: str | None) -> QueueCounts:
    """Return the rows by state of one agent, or of all."""
    row = connection.execute(_COUNTS, {"agent_id": agent_id}).one()
    return QueueCounts(row.pending, row.processing, row.done, row.dead, float(row.oldest_pending_seconds))
