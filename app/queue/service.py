"""The transactions of the queue that dispatchers run: claim, reap, put back, and the upkeep beside them."""

import uuid
from collections.abc import Sequence
from uuid import UUID

import structlog
from sqlalchemy import text

from app.config import Settings
from app.db import Database
from app.queue import repository, workers
from app.queue.models import Batch, QueueCounts, TargetKind
from app.queue.packing import pack
from app.queue.workers import WorkerIdentity

_log = structlog.get_logger(__name__)

# Two batches a slot: one being encoded, one waiting. The rest of the backlog stays in PostgreSQL, where its order can still change.
_BATCHES_PER_SLOT = 2

_ENQUEUE_MISSING = text("SELECT memory_system.enqueue_missing(:most)")
_TICK = text(
    """
    INSERT INTO memory_system.beat_ticks (task, slot)
    VALUES (:task, to_timestamp(floor(extract(epoch FROM now()) / :period_seconds) * :period_seconds))
    ON CONFLICT (task, slot) DO NOTHING
    """
)
_PRUNE_TICKS = text("DELETE FROM memory_system.beat_ticks WHERE ran_at < now() - interval '1 day'")


class QueueService:
    """What happens to queue rows outside of encoding. Each method is one short transaction.

    Args:
        database: Logged in as nexus_worker.
        settings: Sizes and times.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def claim(self) -> list[Batch]:
        """Take due work and return it packed into batches, the most urgent first; empty when there is nothing to do or no room."""
        token = uuid.uuid4()
        with self._database.transaction() as connection:
            rows = repository.claim(
                connection,
                token,
                most=self._settings.claim_rows,
                rows_per_slot=_BATCHES_PER_SLOT * self._settings.batch_rows,
                lease_seconds=self._settings.lease_seconds,
                silence_seconds=self._settings.worker_silence_seconds,
            )
        return pack(rows, token, self._settings.batch_rows, self._settings.batch_chars)

    def reap(self) -> int:
        """Take back rows whose lease ran out and return how many."""
        with self._database.transaction() as connection:
            states = repository.reap(connection, max_attempts=self._settings.max_attempts)
        _log_crashed(states, "lease_expired")
        return len(states)

    def release_crashed(self, target_kind: TargetKind, target_ids: Sequence[UUID], token: UUID, error: str) -> int:
        """Take back the rows of a worker that is known to have died and return how many.

        Args:
            target_kind: The kind of the rows.
            target_ids: The rows of its batch.
            token: Its claim.
            error: Code and exception class, for example "worker_lost: WorkerLostError".
        """
        with self._database.transaction() as connection:
            states = repository.crash(connection, target_kind, target_ids, token, error=error, max_attempts=self._settings.max_attempts)
        _log_crashed(states, error)
        return len(states)

    def counts(self) -> QueueCounts:
        """Return the rows by state, over all agents."""
        with self._database.transaction() as connection:
            return repository.counts(connection, None)

    def beat(self, identity: WorkerIdentity, items_per_second: float | None = None) -> None:
        """Say that a process is alive."""
        with self._database.transaction() as connection:
            workers.beat(connection, identity, items_per_second)

    def leave(self, identity: WorkerIdentity) -> None:
        """Say that a process ends."""
        with self._database.transaction() as connection:
            workers.leave(connection, identity)

    def begin_tick(self, task: str, period_seconds: int) -> bool:
        """Return whether this call is the first of the current period; the others, from a second beat or a redelivery, must not run."""
        with self._database.transaction() as connection:
            return connection.execute(_TICK, {"task": task, "period_seconds": period_seconds}).rowcount == 1

    def prune(self) -> dict[str, int]:
        """Forget old ticks and processes long gone, and return how many of each."""
        with self._database.transaction() as connection:
            return {"beat_ticks": connection.execute(_PRUNE_TICKS).rowcount, "workers": workers.prune(connection)}

    def enqueue_missing(self) -> int:
        """Enqueue up to 10,000 episodes that the triggers missed and return how many."""
        with self._database.transaction() as connection:
            enqueued = int(connection.execute(_ENQUEUE_MISSING, {"most": 10_000}).scalar_one())
        if enqueued:
            _log.warning("missing_work_enqueued", rows=enqueued, action="episodes were loaded with triggers off; nothing to do")
        return enqueued


def _log_crashed(states: dict[UUID, str], error: str) -> None:
    if not states:
        return
    dead = [str(target_id) for target_id, state in states.items() if state == "dead"]
    _log.warning(
        "rows_taken_back",
        error=error,
        rows=len(states),
        dead=dead[:20],
        action="dead rows used up their attempts; read last_error and replay them once the cause is gone" if dead else "nothing to do",
    )
