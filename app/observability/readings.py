"""The metrics that PostgreSQL knows, as the API exposes them: read at each scrape, the same whichever process answers it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from app.errors import NexusError
from app.observability import metrics
from app.observability.metrics import Distribution

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class DatabaseReadings:
    """What one scrape reads from PostgreSQL.

    Attributes:
        queue_depth: Rows of the embeddings queue by state.
        oldest_pending_age_seconds: Age of the oldest pending row; 0.0 when none is pending.
        processed: Rows that got their vector, by kind of target, ever.
        dead: Rows that became dead, by cause, ever.
        processing_latency: By kind of target.
        time_to_searchable: By kind of target.
        accounting_identity_drift: Accepted episodes that no class accounts for; 0 when all is well.
        workers_alive: Workers heard from lately that have no problem.
        dispatchers_alive: Dispatchers heard from lately.
        workers_advised: How many would drain the backlog in AUTOSCALE_DRAIN_MINUTES.
        drift_found: What reconciliation found, by (kind, drift), over all its runs.
        drift_repaired: What it repaired.
        reconciled_at: When the last good run of each kind ended, in seconds since 1970.
        recall_at_10: Of the vector index against an exact scan; None while no agent is large enough for the index.
    """

    queue_depth: Mapping[str, int]
    oldest_pending_age_seconds: float
    processed: Mapping[str, int]
    dead: Mapping[str, int]
    processing_latency: Mapping[str, Distribution]
    time_to_searchable: Mapping[str, Distribution]
    accounting_identity_drift: int
    workers_alive: int
    dispatchers_alive: int
    workers_advised: int
    drift_found: Mapping[tuple[str, str], int]
    drift_repaired: Mapping[tuple[str, str], int]
    reconciled_at: Mapping[str, float]
    recall_at_10: float | None = None


class _DatabaseCollector(Collector):
    def __init__(self, read: Callable[[], DatabaseReadings]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        try:
            readings = self._read()
        except NexusError as error:
            structlog.get_logger().warning("metrics_database_unreadable", code=error.code)
            return [metrics.DATABASE_UP.value(0)]
        return [metrics.DATABASE_UP.value(1), *_queue(readings), *_integrity(readings)]


def _queue(readings: DatabaseReadings) -> list[Metric]:
    return [
        metrics.QUEUE_DEPTH.family(_labelled(readings.queue_depth)),
        metrics.OLDEST_PENDING.value(readings.oldest_pending_age_seconds),
        metrics.PROCESSED.family(_labelled(readings.processed)),
        metrics.DEAD.family(_labelled(readings.dead)),
        metrics.PROCESSING_LATENCY.histogram(_labelled(readings.processing_latency)),
        metrics.TIME_TO_SEARCHABLE.histogram(_labelled(readings.time_to_searchable)),
        metrics.WORKERS_ALIVE.value(readings.workers_alive),
        metrics.DISPATCHERS_ALIVE.value(readings.dispatchers_alive),
        metrics.WORKERS_ADVISED.value(readings.workers_advised),
    ]


def _integrity(readings: DatabaseReadings) -> list[Metric]:
    return [
        metrics.IDENTITY_DRIFT.value(readings.accounting_identity_drift),
        metrics.DRIFT_FOUND.family(readings.drift_found.items()),
        metrics.DRIFT_REPAIRED.family(readings.drift_repaired.items()),
        metrics.RECONCILED_AT.family(_labelled(readings.reconciled_at)),
        metrics.RECALL.family([] if readings.recall_at_10 is None else [((), readings.recall_at_10)]),
    ]


def _labelled(values: Mapping[str, Value]) -> list[tuple[tuple[str, ...], Value]]:
    return [((label,), value) for label, value in sorted(values.items())]


def render_database(read: Callable[[], DatabaseReadings]) -> bytes:
    """Return the exposition of what PostgreSQL knows; a database that is down makes nexus_database_up 0 and never fails the scrape."""
    registry = CollectorRegistry()
    registry.register(_DatabaseCollector(read))
    return generate_latest(registry)
