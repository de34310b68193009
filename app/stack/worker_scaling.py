"""Starts and stops the stack's worker programs as the backlog needs them."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from app.config import Settings
from app.errors import DatabaseUnavailable
from app.queue.advice import Advice
from app.stack.autoscaler import Autoscaler
from app.stack.programs import first_workers, worker_names
from app.stack.supervisor import STOPPED_STATES, ProcessInfo

_CONSULT_SECONDS = 2.0
# Whoever watches the stack waits for the answer, so a database that hangs must not hang it for long.
_STATEMENT_SECONDS = 3.0
_UP_STATES = frozenset({"STARTING", "RUNNING", "BACKOFF"})

ReadAdvice = Callable[[], Advice]
"""Returns what the queue advises; raises DatabaseUnavailable."""


class Programs(Protocol):
    """Starts and stops a program, and returns at once."""

    def start(self, name: str) -> None:
        """Start it."""

    def stop(self, name: str) -> None:
        """Ask it to stop, warmly and without waiting for it."""


class WorkerScaling:
    """Keeps as many worker programs running as the autoscaler wants, the lowest numbers first.

    Args:
        settings: Of the running stack; WORKER_MIN, WORKER_MAX and AUTOSCALE_* decide.
        programs: The process supervisor.
        report: Is told each change with its reason, in one line.
        read_advice: Where the advice comes from; by default the database, as nexus_worker.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        settings: Settings,
        programs: Programs,
        report: Callable[[str], None],
        read_advice: ReadAdvice | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        low, high = settings.worker_bounds
        up, down = settings.autoscale_up_seconds, settings.autoscale_down_seconds
        self._autoscaler = Autoscaler(len(first_workers(settings)), low, high, up, down)
        self._names = worker_names(settings)
        self._is_fixed = low == high
        self._programs = programs
        self._report = report
        self._clock = clock
        self._read_advice = read_advice
        self._settings = settings
        self._next_consultation = 0.0

    def step(self, processes: Sequence[ProcessInfo]) -> None:
        """Ask for advice when it is time, and start or stop programs accordingly; without effect where WORKER_MIN is WORKER_MAX.

        Args:
            processes: What the supervisor knows now.

        Raises:
            StackError: The supervisor does not answer, or a worker cannot be started.
        """
        now = self._clock()
        if self._is_fixed or now < self._next_consultation:
            return
        self._next_consultation = now + _CONSULT_SECONDS
        before = self._autoscaler.wanted
        advice = self._advice()
        # The number for want of a rate is the present one: no reason to change it.
        known = advice if advice is not None and advice.is_measured else None
        if self._autoscaler.consult(now, None if known is None else known.workers_advised) and known is not None:
            self._report(f"workers: {before} -> {self._autoscaler.wanted} ({known.reason})")
        self._apply(processes)

    def _apply(self, processes: Sequence[ProcessInfo]) -> None:
        """Bring the programs to what is wanted. One that is still stopping is started again at a later step."""
        states = {process.name: process.state for process in processes}
        for number, name in enumerate(self._names, start=1):
            if number <= self._autoscaler.wanted and states.get(name) in STOPPED_STATES:
                self._programs.start(name)
            elif number > self._autoscaler.wanted and states.get(name) in _UP_STATES:
                self._programs.stop(name)

    def _advice(self) -> Advice | None:
        if self._read_advice is None:
            self._read_advice = _advice_of_database(self._settings)
        try:
            return self._read_advice()
        except DatabaseUnavailable:
            return None


def _advice_of_database(settings: Settings) -> ReadAdvice:
    # Imported here because SQLAlchemy takes longer to load than `stack status` takes to run.
    from app.db import Database
    from app.queue.status import QueueStatusService

    database = Database(settings, "nexus_worker", "nexus autoscaler", _STATEMENT_SECONDS)
    return QueueStatusService(database, settings).advice
