"""Who is at work: the rows by which dispatchers and workers are known, and their SQL."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
from sqlalchemy import Connection, text

_BEAT = text(
    """
    INSERT INTO memory_system.workers
        (worker_id, kind, hostname, pid, slots, model_id, precision, items_per_second, chars_per_second, problem)
    VALUES (:worker_id, :kind, :hostname, :pid, :slots, :model_id, :precision, :items_per_second, :chars_per_second, :problem)
    ON CONFLICT (worker_id) DO UPDATE
        SET heartbeat_at = now(), slots = excluded.slots, model_id = excluded.model_id, precision = excluded.precision,
            items_per_second = excluded.items_per_second, chars_per_second = excluded.chars_per_second, problem = excluded.problem
    """
)
_LEAVE = text("DELETE FROM memory_system.workers WHERE worker_id = :worker_id")
_OF_HOST = text("SELECT worker_id, pid FROM memory_system.workers WHERE hostname = :hostname AND worker_id <> :worker_id")
_LEAVE_ALL = text("DELETE FROM memory_system.workers WHERE worker_id = ANY (:worker_ids)")
_HEARD_OF = text(
    "SELECT extract(epoch FROM max(heartbeat_at))::double precision FROM memory_system.workers"
    " WHERE hostname = :hostname AND pid = ANY (:pids)"
)
_PRUNE = text("DELETE FROM memory_system.workers WHERE heartbeat_at < now() - interval '1 day'")
_ALIVE = text(
    """
    SELECT kind, count(*) AS processes, coalesce(sum(slots), 0) AS slots
    FROM memory_system.workers WHERE heartbeat_at > now() - make_interval(secs => :silence_seconds) GROUP BY kind
    """
)
_SILENT = text(
    """
    SELECT kind, count(*) AS processes FROM memory_system.workers
    WHERE heartbeat_at <= now() - make_interval(secs => :silence_seconds) AND heartbeat_at > now() - interval '1 hour' GROUP BY kind
    """
)


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """One process that takes part in the queue's work. `slots` is how many batches it encodes at once; a dispatcher has none."""

    worker_id: str
    kind: str
    hostname: str
    pid: int
    slots: int = 0
    model_id: int | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class Alive:
    """How many processes of a kind were heard from lately, with the sum of their slots."""

    processes: int = 0
    slots: int = 0


def this_process(kind: str, slots: int = 0, model_id: int | None = None, precision: str | None = None) -> WorkerIdentity:
    """Return the identity of the running process."""
    hostname = socket.gethostname()
    return WorkerIdentity(f"{kind}@{hostname}:{os.getpid()}", kind, hostname, os.getpid(), slots, model_id, precision)


def beat(
    connection: Connection,
    identity: WorkerIdentity,
    items_per_second: float | None = None,
    chars_per_second: float | None = None,
    problem: str | None = None,
) -> None:
    """Say that the process is alive; one with a problem takes no work, so it has no slots.

    Args:
        connection: In a transaction.
        identity: The process.
        items_per_second: Episodes a second while busy; None when that is not known.
        chars_per_second: Characters a second while busy; None when that is not known.
        problem: Why it takes no work; None when it does.
    """
    connection.execute(
        _BEAT,
        {
            "worker_id": identity.worker_id,
            "kind": identity.kind,
            "hostname": identity.hostname,
            "pid": identity.pid,
            "slots": 0 if problem else identity.slots,
            "model_id": identity.model_id,
            "precision": identity.precision,
            "items_per_second": items_per_second,
            "chars_per_second": chars_per_second,
            "problem": problem,
        },
    )


def leave(connection: Connection, identity: WorkerIdentity) -> None:
    """Say that the process ends, so that no room is kept for it."""
    connection.execute(_LEAVE, {"worker_id": identity.worker_id})


def bury(connection: Connection, identity: WorkerIdentity) -> int:
    """Take away the rows of this host's processes that died without leaving, and return how many.

    Until then the claim window has room for them, and the advice counts on their rate.
    """
    rows = connection.execute(_OF_HOST, {"hostname": identity.hostname, "worker_id": identity.worker_id})
    gone = [row.worker_id for row in rows if not psutil.pid_exists(row.pid)]
    return connection.execute(_LEAVE_ALL, {"worker_ids": gone}).rowcount if gone else 0


def last_heard_of(connection: Connection, hostname: str, pids: Sequence[int]) -> float | None:
    """Return when any of a host's processes last said that it lives, in seconds since 1970; None when none of them ever did."""
    heard_at: float | None = connection.execute(_HEARD_OF, {"hostname": hostname, "pids": list(pids)}).scalar_one()
    return heard_at


def silent(connection: Connection, silence_seconds: float) -> dict[str, int]:
    """Return how many processes of each kind fell silent within the last hour without leaving; a kind with none is absent."""
    return {row.kind: row.processes for row in connection.execute(_SILENT, {"silence_seconds": silence_seconds})}


def prune(connection: Connection) -> int:
    """Forget processes not heard from for a day and return how many."""
    return connection.execute(_PRUNE).rowcount


def alive(connection: Connection, silence_seconds: float) -> dict[str, Alive]:
    """Return the live processes by kind; a kind with none is absent."""
    rows = connection.execute(_ALIVE, {"silence_seconds": silence_seconds})
    return {row.kind: Alive(int(row.processes), int(row.slots)) for row in rows}
