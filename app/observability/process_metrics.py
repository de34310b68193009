"""/metrics of a dispatcher or of a worker's main process: what it did, and what it takes of the machine."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from app.observability import metrics

_log = structlog.get_logger(__name__)

MomentOrNone = Callable[[], float | None]
"""Returns seconds since 1970, None when nothing is known."""


@dataclass
class DispatcherCounts:
    """What a dispatcher did since it began."""

    batches: int = 0
    rows: int = 0
    broker_failures: int = 0
    reaped_rows: int = 0
    heard_at: float | None = None

    def sent(self, batches: int, rows: int) -> None:
        """Count batches that the broker took."""
        self.batches += batches
        self.rows += rows

    def heard(self) -> None:
        """Note that it has just said that it lives."""
        self.heard_at = time.time()

    def collect(self) -> list[Metric]:
        """Return the counts as metrics."""
        return [
            metrics.DISPATCHED_BATCHES.value(self.batches),
            metrics.DISPATCHED_ROWS.value(self.rows),
            metrics.BROKER_FAILURES.value(self.broker_failures),
            metrics.REAPED_ROWS.value(self.reaped_rows),
        ]


@dataclass
class WorkerCounts:
    """What a worker's main process saw of its children since it began."""

    batches: dict[str, int] = field(default_factory=lambda: {"ended": 0, "lost": 0})
    rows: dict[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0, "lost": 0})
    child_restarts: int = 0

    def ended(self, rows: Iterable[tuple[str, int]]) -> None:
        """Count a batch whose child told what became of its rows; outcomes that are not known are left out."""
        self.batches["ended"] += 1
        for outcome, count in rows:
            if outcome in self.rows:
                self.rows[outcome] += count

    def lost(self) -> None:
        """Count a batch whose child died."""
        self.batches["lost"] += 1

    def collect(self) -> list[Metric]:
        """Return the counts as metrics."""
        return [
            metrics.WORKER_BATCHES.family(((outcome,), count) for outcome, count in self.batches.items()),
            metrics.WORKER_ROWS.family(((outcome,), count) for outcome, count in self.rows.items()),
            metrics.CHILD_RESTARTS.value(self.child_restarts),
        ]


class _ProcessCollector(Collector):
    def __init__(self, counts: DispatcherCounts | WorkerCounts, heard_at: MomentOrNone) -> None:
        self._counts = counts
        self._heard_at = heard_at
        self._process = psutil.Process()

    def collect(self) -> Iterable[Metric]:
        heard_at = self._heard_at()
        parts = {"main": [self._process], "children": self._process.children(recursive=True)}
        used = [(part, _resources(processes)) for part, processes in parts.items()]
        return [
            metrics.STARTED_AT.value(self._process.create_time()),
            metrics.HEARD_AT.family([] if heard_at is None else [((), heard_at)]),
            metrics.MEMORY.family(((part,), memory) for part, (memory, _, _) in used),
            metrics.CPU.family(((part,), seconds) for part, (_, seconds, _) in used),
            metrics.OPEN_FILES.family(((part,), files) for part, (_, _, files) in used),
            *self._counts.collect(),
        ]


def _resources(processes: Iterable[psutil.Process]) -> tuple[int, float, int]:
    """Return memory in bytes, time on a core in seconds and open files of the processes together; one that ends meanwhile is left out."""
    memory, seconds, files = 0, 0.0, 0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            held = process.memory_info().rss, times.user + times.system, process.num_fds()
            memory, seconds, files = memory + held[0], seconds + held[1], files + held[2]
    return memory, seconds, files


def serve(counts: DispatcherCounts | WorkerCounts, host: str, port: int, heard_at: MomentOrNone) -> None:
    """Show the metrics at a port for as long as the process lives. One that is busy is logged: the work does not depend on it.

    Args:
        counts: Of this process; read at each scrape.
        host: The address to bind to.
        port: 0 for none.
        heard_at: When the process last said that it lives.
    """
    if port == 0:
        return
    registry = CollectorRegistry()
    registry.register(_ProcessCollector(counts, heard_at))
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        _log.error("metrics_not_shown", host=host, port=port, error=error.strerror, action="choose another METRICS_PORT; the work goes on")
