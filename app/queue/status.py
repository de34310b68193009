"""What the queue looks like from outside: rows by lane, who works on them, and how many workers it needs."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.config import Settings
from app.db import Database
from app.queue import tallies
from app.queue.advice import Advice, Backlog, advise
from app.queue.lanes import LANES, Lane
from app.queue.tallies import Tallies
from app.queue.workers import Alive, alive

# One statement, so that every number is from one snapshot. The left join keeps done and dead when no row is open.
_ROWS = text(
    """
    SELECT c.done, c.dead, l.lane, l.pending, l.waiting, l.due_chars, l.processing, l.oldest_pending_seconds
    FROM memory_system.queue_counts(NULL) c LEFT JOIN memory_system.queue_lanes() l ON true
    """
)
_DUE = text(
    "SELECT coalesce(sum(pending - waiting + processing), 0) AS rows, coalesce(sum(due_chars), 0) AS chars FROM memory_system.queue_lanes()"
)
_PROCESSES = text(
    """
    SELECT w.worker_id, w.kind, w.hostname, w.pid, w.slots, m.name AS model, w.precision, w.items_per_second, w.chars_per_second,
           extract(epoch FROM now() - w.heartbeat_at)::double precision AS seconds_since_heartbeat, w.problem
    FROM memory_system.workers w LEFT JOIN memory_system.embedding_models m USING (model_id)
    WHERE w.heartbeat_at > now() - make_interval(secs => :silence_seconds)
    ORDER BY w.worker_id
    """
)
_PROBLEMS = text(
    """
    SELECT problem FROM memory_system.workers
    WHERE kind = 'worker' AND problem IS NOT NULL AND heartbeat_at > now() - make_interval(secs => :silence_seconds)
    ORDER BY worker_id
    """
)
_HEARD_FROM = text(
    """
    SELECT EXISTS (SELECT FROM memory_system.workers WHERE kind = :kind AND hostname = :hostname
                   AND heartbeat_at > now() - make_interval(secs => :silence_seconds)
                   AND (problem IS NULL OR NOT starts_with(problem, 'worker_deaf')))
    """
)
_RATES = text(
    """
    SELECT chars_per_second FROM memory_system.workers
    WHERE kind = 'worker' AND problem IS NULL AND heartbeat_at > now() - make_interval(secs => :silence_seconds)
    """
)


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """Unfinished rows of one priority lane; `waiting` are pending rows that are due later, after a failure."""

    lane: str
    pending: int
    waiting: int
    processing: int
    oldest_pending_age_seconds: float


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A live worker. Its rates are while busy, and None before its first batch; `problem` is None when it is well."""

    worker_id: str
    hostname: str
    pid: int
    slots: int
    model: str | None
    precision: str | None
    items_per_second: float | None
    chars_per_second: float | None
    seconds_since_heartbeat: float
    problem: str | None


@dataclass(frozen=True, slots=True)
class DispatcherStatus:
    """A live dispatcher."""

    worker_id: str
    hostname: str
    pid: int
    seconds_since_heartbeat: float


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue over all agents: rows by state and by lane (all four, most urgent first), live processes by id, and the advice."""

    pending: int
    waiting: int
    processing: int
    done: int
    dead: int
    oldest_pending_age_seconds: float
    lanes: list[LaneStatus]
    workers: list[WorkerStatus]
    dispatchers: list[DispatcherStatus]
    advice: Advice


class QueueStatusService:
    """Reads the queue's state over all agents; no content.

    Args:
        database: Logged in as nexus_app or nexus_worker.
        settings: When a process counts as gone, and in what time a backlog should drain.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def status(self, drain_minutes: float | None = None) -> QueueStatus:
        """Return everything at once.

        Args:
            drain_minutes: What the advice aims at; None for AUTOSCALE_DRAIN_MINUTES.
        """
        with self._database.transaction() as connection:
            rows = connection.execute(_ROWS).all()
            processes = connection.execute(_PROCESSES, self._silence).all()
        by_lane = {row.lane: row for row in rows if row.lane is not None}
        lanes = [_lane(lane, by_lane.get(lane.number)) for lane in LANES]
        workers = [_worker(row) for row in processes if row.kind == "worker"]
        pending = sum(lane.pending for lane in lanes)
        rates = [worker.chars_per_second for worker in workers if worker.problem is None]
        waiting, processing = sum(lane.waiting for lane in lanes), sum(lane.processing for lane in lanes)
        due = Backlog(pending - waiting + processing, sum(row.due_chars for row in by_lane.values()))
        return QueueStatus(
            pending=pending,
            waiting=waiting,
            processing=processing,
            done=rows[0].done,
            dead=rows[0].dead,
            oldest_pending_age_seconds=max(lane.oldest_pending_age_seconds for lane in lanes),
            lanes=lanes,
            workers=workers,
            dispatchers=[_dispatcher(row) for row in processes if row.kind == "dispatcher"],
            advice=advise(due, rates, self._minutes(drain_minutes)),
        )

    def advice(self, drain_minutes: float | None = None) -> Advice:
        """Return only the advice; it reads unfinished rows and heartbeats, so it may be asked every few seconds."""
        with self._database.transaction() as connection:
            due = connection.execute(_DUE).one()
            rates = list(connection.execute(_RATES, self._silence).scalars())
        return advise(Backlog(int(due.rows), int(due.chars)), rates, self._minutes(drain_minutes))

    def dispatchers_alive(self) -> int:
        """Return how many dispatchers were heard from lately."""
        with self._database.transaction() as connection:
            return alive(connection, self._settings.worker_silence_seconds).get("dispatcher", Alive()).processes

    def tallies(self) -> Tallies:
        """Return how many rows were done and died, ever."""
        with self._database.transaction() as connection:
            return tallies.read(connection)

    def is_heard_from(self, kind: str, hostname: str) -> bool:
        """Return whether a dispatcher or worker of a host said lately that it lives.

        One that is paused does so too. One whose parent is gone or stands still does not: only a new start helps it.

        Args:
            kind: dispatcher or worker.
            hostname: As the process itself sees it.
        """
        with self._database.transaction() as connection:
            return bool(connection.execute(_HEARD_FROM, {"kind": kind, "hostname": hostname, **self._silence}).scalar_one())

    @property
    def _silence(self) -> dict[str, float]:
        return {"silence_seconds": self._settings.worker_silence_seconds}

    def _minutes(self, drain_minutes: float | None) -> float:
        return self._settings.autoscale_drain_minutes if drain_minutes is None else drain_minutes


def problems(connection: Connection, silence_seconds: float) -> list[str]:
    """Return why live workers take no work, one entry for each such worker; empty when all are well."""
    return list(connection.execute(_PROBLEMS, {"silence_seconds": silence_seconds}).scalars())


def _lane(lane: Lane, row: Any) -> LaneStatus:
    if row is None:
        return LaneStatus(lane.name, 0, 0, 0, 0.0)
    return LaneStatus(lane.name, row.pending, row.waiting, row.processing, row.oldest_pending_seconds)


def _worker(row: Any) -> WorkerStatus:
    return WorkerStatus(
        worker_id=row.worker_id,
        hostname=row.hostname,
        pid=row.pid,
        slots=row.slots,
        model=row.model,
        precision=row.precision,
        items_per_second=row.items_per_second,
        chars_per_second=row.chars_per_second,
        seconds_since_heartbeat=row.seconds_since_heartbeat,
        problem=row.problem,
    )


def _dispatcher(row: Any) -> DispatcherStatus:
    return DispatcherStatus(row.worker_id, row.hostname, row.pid, row.seconds_since_heartbeat)
