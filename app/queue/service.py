"""The transactions of the queue that dispatchers run: claim, reap, put back, and the upkeep beside them."""

import uuid
from collections.abc import Iterable, Sequence
from uuid import UUID

import structlog
from sqlalchemy import text

from app.config import Settings
from app.db import Database
from app.queue import repository, workers
from app.queue.lanes import LowWater
from app.queue.models import Batch, Claim, QueueCounts
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
        self._low_water = LowWater()

    def claim(self, unread: int = 0) -> list[Batch]:
        """Take due work and return it packed into batches, the most urgent first; empty when there is nothing to do or no room.

        Args:
            unread: Messages in the broker that no worker has taken. Those beyond the rows in flight are of claims that have ended:
                they take room, or a worker that reads nothing would let them pile up from lease to lease.
        """
        token = uuid.uuid4()
        from_start = self._low_water.begin()
        oldest_claim = self._low_water.oldest_claim
        with self._database.transaction() as connection:
            if not repository.enter_window(connection):
                return []
            if from_start:
                oldest_claim = repository.oldest_claim(connection)
            rows = repository.claim(
                connection,
                token,
                after={} if from_start else self._low_water.positions(),
                oldest_claim=oldest_claim,
                most=self._settings.claim_rows,
                unread=unread,
                messages_per_slot=_BATCHES_PER_SLOT,
                rows_per_slot=_BATCHES_PER_SLOT * self._settings.batch_rows,
                batch_rows=self._settings.batch_rows,
                lease_seconds=self._settings.lease_seconds,
                silence_seconds=self._settings.worker_silence_seconds,
            )
        self._low_water.end(rows, from_start=from_start, oldest_claim=oldest_claim)
        return pack(rows, token, self._settings.batch_rows, self._settings.batch_chars)

    def give_back(self, claims: Iterable[Claim]) -> int:
        """Put back, uncharged and in their place, rows that nobody has started, and return how many.

        Safe also when their message is on its way: the token is spent, so it matches nothing.
        """
        with self._database.transaction() as connection:
            return sum(repository.give_back(connection, claim) for claim in claims)

    def reap(self) -> int:
        """Take back rows whose lease ran out and return how many."""
        with self._database.transaction() as connection:
            states = repository.reap(connection, max_attempts=self._settings.max_attempts, grace_seconds=self._settings.heartbeat_seconds)
        _log_crashed(states, "lease_expired")
        return len(states)

    def release_crashed(self, claim: Claim, error: str) -> int:
        """Take back the rows of a worker that is known to have died and return how many.

        Args:
            claim: Its batch.
            error: Code and exception class, for example "worker_lost: WorkerLostError".
        """
        with self._database.transaction() as connection:
            states = repository.crash(connection, claim, error=error, max_attempts=self._settings.max_attempts)
        _log_crashed(states, error)
        return len(states)

    def counts(self) -> QueueCounts:
        """Return the rows by state, over all agents."""
        with self._database.transaction() as connection:
            return repository.counts(connection, None)

    def beat(
        self,
        identity: WorkerIdentity,
        items_per_second: float | None = None,
        chars_per_second: float | None = None,
        problem: str | None = None,
    ) -> None:
        """Say that a process is alive, how fast it is, and why it takes no work if it takes none."""
        with self._database.transaction() as connection:
            workers.beat(connection, identity, items_per_second, chars_per_second, problem)

    def join(self, identity: WorkerIdentity) -> None:
        """Say that a process begins, in the place of any of its host that died without a word."""
        with self._database.transaction() as connection:
            buried = workers.bury(connection, identity)
            workers.beat(connection, identity)
        _log_buried(identity, buried)

    def forget_dead(self, identity: WorkerIdentity) -> None:
        """Forget this host's processes that died without a word, so that no room is kept for them and nobody takes them for alive."""
        with self._database.transaction() as connection:
            buried = workers.bury(connection, identity)
        _log_buried(identity, buried)

    def last_heard_of(self, hostname: str, pids: Sequence[int]) -> float | None:
        """Return when any of a host's processes last said that it lives, in seconds since 1970; None when none of them ever did."""
        with self._database.transaction() as connection:
            return workers.last_heard_of(connection, hostname, pids)

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


def _log_buried(identity: WorkerIdentity, processes: int) -> None:
    if processes:
        _log.info("dead_processes_forgotten", hostname=identity.hostname, processes=processes)


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
