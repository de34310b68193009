"""Prometheus metrics of the API: requests counted in this process, backlog and identity read from PostgreSQL."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.errors import NexusError

UNMATCHED_RULE = "(unmatched)"
"""The one url_rule label of every request that matches no route, so that scanners cannot grow the series."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LATENCY_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_REQUESTS = Counter("api_requests_total", "Requests answered, by route.", ("method", "url_rule", "status"))
_LATENCY = Histogram("api_latency_seconds", "Time from request to answer, by route.", ("method", "url_rule"), buckets=_LATENCY_BUCKETS)

CacheOutcome = Literal["hit", "miss", "unavailable", "written", "failed"]
"""Of a read: there, not there (or void), Redis did not answer. Of a write: done, or not, so PostgreSQL serves until it is repaired."""

_CACHE = Counter("cache_requests_total", "Reads from and writes to Redis as a cache, by outcome.", ("outcome",))
for _outcome in get_args(CacheOutcome):
    _CACHE.labels(_outcome)


@dataclass(frozen=True, slots=True)
class DatabaseReadings:
    """What one scrape reads from PostgreSQL.

    Attributes:
        queue_depth: Rows of the embeddings queue by state.
        oldest_pending_age_seconds: Age of the oldest pending row; 0.0 when none is pending.
        accounting_identity_drift: Accepted episodes that no class accounts for; 0 when all is well.
        workers_alive: Workers heard from lately that have no problem.
        workers_advised: How many would drain the backlog in AUTOSCALE_DRAIN_MINUTES.
        drift_found: What reconciliation found, by (kind, drift), over all its runs.
        drift_repaired: What it repaired.
        reconciled_at: When the last good run of each kind ended, in seconds since 1970.
        recall_at_10: Of the vector index against an exact scan; None while no agent is large enough for the index.
    """

    queue_depth: Mapping[str, int]
    oldest_pending_age_seconds: float
    accounting_identity_drift: int
    workers_alive: int
    workers_advised: int
    drift_found: Mapping[tuple[str, str], int]
    drift_repaired: Mapping[tuple[str, str], int]
    reconciled_at: Mapping[str, float]
    recall_at_10: float | None = None


def observe_request(method: str, url_rule: str | None, status: int, seconds: float) -> None:
    """Count one answered request; `url_rule` is the route's pattern, None when no route matched."""
    method = method if method in _METHODS else "OTHER"
    rule = url_rule or UNMATCHED_RULE
    _REQUESTS.labels(method, rule, str(status)).inc()
    _LATENCY.labels(method, rule).observe(seconds)


def observe_cache(outcome: CacheOutcome) -> None:
    """Count one read from or write to the cache."""
    _CACHE.labels(outcome).inc()


class _DatabaseCollector(Collector):
    def __init__(self, read: Callable[[], DatabaseReadings]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("nexus_database_up", "1 when this scrape could read PostgreSQL, else 0.")
        try:
            readings = self._read()
        except NexusError as error:
            structlog.get_logger().warning("metrics_database_unreadable", code=error.code)
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        depth = GaugeMetricFamily("embeddings_queue_depth", "Rows of the embeddings queue.", labels=["state"])
        for state, rows in sorted(readings.queue_depth.items()):
            depth.add_metric([state], rows)
        age = GaugeMetricFamily("embeddings_oldest_pending_age_seconds", "Age of the oldest pending row; 0 when none is.")
        age.add_metric([], readings.oldest_pending_age_seconds)
        drift = GaugeMetricFamily("accounting_identity_drift", "Accepted episodes that nothing accounts for; must be 0.")
        drift.add_metric([], readings.accounting_identity_drift)
        alive = GaugeMetricFamily("embeddings_workers_alive", "Workers heard from lately that have no problem.")
        alive.add_metric([], readings.workers_alive)
        advised = GaugeMetricFamily("embeddings_workers_advised", "Workers that would drain the backlog in AUTOSCALE_DRAIN_MINUTES.")
        advised.add_metric([], readings.workers_advised)
        return [up, depth, age, drift, alive, advised, *_upkeep(readings)]


def _upkeep(readings: DatabaseReadings) -> list[Metric]:
    found = CounterMetricFamily(
        "reconciliation_drift_found", "Differences between stores that reconciliation found.", labels=["kind", "drift"]
    )
    for labels, count in sorted(readings.drift_found.items()):
        found.add_metric(labels, count)
    repaired = CounterMetricFamily("reconciliation_drift_repaired", "Differences that it repaired.", labels=["kind", "drift"])
    for labels, count in sorted(readings.drift_repaired.items()):
        repaired.add_metric(labels, count)
    at = GaugeMetricFamily("reconciliation_last_success_timestamp_seconds", "When the last good run ended.", labels=["kind"])
    for kind, seconds in sorted(readings.reconciled_at.items()):
        at.add_metric([kind], seconds)
    recall = GaugeMetricFamily("ann_recall_at_10", "Share of the ten nearest that the vector index finds, by the latest sample.")
    if readings.recall_at_10 is not None:
        recall.add_metric([], readings.recall_at_10)
    return [found, repaired, at, recall]


def render_database(read: Callable[[], DatabaseReadings]) -> bytes:
    """Return the exposition of what PostgreSQL knows; a database that is down makes nexus_database_up 0 and never fails the scrape."""
    registry = CollectorRegistry()
    registry.register(_DatabaseCollector(read))
    return generate_latest(registry)
