"""Every metric of the service, declared once: its name, kind, labels and meaning; and the counters of requests and of the cache."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["api", "database", "dispatcher", "worker"]
"""Who knows it: the API's processes, PostgreSQL by way of the API, a dispatcher, a worker's main process."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric as it is exposed.

    Attributes:
        name: As Prometheus stores it; a histogram's without `_bucket`, `_sum` and `_count`.
        kind: What Prometheus calls its type.
        help: What a value means, with its unit.
        labels: Their names, each with few values, whatever clients send.
        sources: Who exposes it.
        buckets: Upper bounds of a histogram, ascending, without infinity.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ("database",)
    buckets: tuple[float, ...] = ()

    def family(self, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
        """Return it with values by their labels, as a collector exposes them; not for a histogram."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = kind(self.name, self.help, labels=self.labels)
        for labels, value in sorted(values):
            family.add_metric(labels, value)
        return family

    def value(self, value: float) -> Metric:
        """Return it with its one value, where it has no labels."""
        return self.family([((), value)])

    def histogram(self, values: Iterable[tuple[tuple[str, ...], "Distribution"]]) -> Metric:
        """Return a histogram with values by their labels."""
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        bounds = [*(f"{bound:g}" for bound in self.buckets), "+Inf"]
        for labels, distribution in values:
            family.add_metric(labels, list(zip(bounds, accumulate(distribution.counts), strict=True)), distribution.total)
        return family


@dataclass(frozen=True, slots=True)
class Distribution:
    """Observations by bucket, each counted in one bucket only, those beyond the last bound in one more; and their sum."""

    counts: tuple[int, ...]
    total: float

    @classmethod
    def of(cls, buckets: Sequence[float], values: Iterable[float]) -> "Distribution":
        """Return the distribution of values over buckets of these upper bounds."""
        counts, total = [0] * (len(buckets) + 1), 0.0
        for value in values:
            counts[next((place for place, bound in enumerate(buckets) if value <= bound), len(buckets))] += 1
            total += value
        return cls(tuple(counts), total)

    def __add__(self, other: "Distribution") -> "Distribution":
        return Distribution(tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)), self.total + other.total)


UNMATCHED_RULE = "(unmatched)"
"""The one url_rule label of every request that matches no route, so that scanners cannot grow the series."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

CacheOutcome = Literal["hit", "miss", "unavailable", "written", "failed"]
"""Of a read: there, not there (or void), Redis did not answer. Of a write: done, or not, so PostgreSQL serves until it is repaired."""

# Requests.
API_REQUESTS = Declared("api_requests_total", "counter", "Requests answered, by route.", ("method", "url_rule", "status"), ("api",))
API_LATENCY = Declared(
    "api_latency_seconds",
    "histogram",
    "Time from request to answer, by route.",
    ("method", "url_rule"),
    ("api",),
    (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
CACHE_REQUESTS = Declared("cache_requests_total", "counter", "Reads from and writes to the cache, by outcome.", ("outcome",), ("api",))

# The queue. The bounds of the two histograms are also the sizes of arrays in PostgreSQL (done_tallies): new ones need a revision.
DATABASE_UP = Declared("nexus_database_up", "gauge", "1 when this scrape could read PostgreSQL, else 0.")
QUEUE_DEPTH = Declared("embeddings_queue_depth", "gauge", "Rows of the embeddings queue.", ("state",))
OLDEST_PENDING = Declared("embeddings_oldest_pending_age_seconds", "gauge", "Age of the oldest pending row; 0 when none is.")
PROCESSED = Declared(
    "embeddings_processed_total", "counter", "Rows that got their vector, each counted in the transaction that wrote it.", ("target_kind",)
)
DEAD = Declared("embeddings_dead_total", "counter", "Rows that became dead, by cause; a row that dies again counts again.", ("cause",))
PROCESSING_LATENCY = Declared(
    "embeddings_processing_latency",
    "histogram",
    "Seconds from the start of a row's last attempt to its vector; the rows of a batch begin and end together.",
    ("target_kind",),
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
TIME_TO_SEARCHABLE = Declared(
    "embeddings_time_to_searchable_seconds",
    "histogram",
    "Seconds from when a text was enqueued, or its dead row replayed, to its vector under the active model.",
    ("target_kind",),
    buckets=(
        *(0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
        *(300.0, 900.0, 3600.0, 21_600.0, 86_400.0),
    ),
)
WORKERS_ALIVE = Declared("embeddings_workers_alive", "gauge", "Workers heard from lately that have no problem.")
DISPATCHERS_ALIVE = Declared("embeddings_dispatchers_alive", "gauge", "Dispatchers heard from lately.")
WORKERS_ADVISED = Declared("embeddings_workers_advised", "gauge", "Workers that would drain the backlog in AUTOSCALE_DRAIN_MINUTES.")

# Integrity.
IDENTITY_DRIFT = Declared("accounting_identity_drift", "gauge", "Accepted episodes that nothing accounts for; must be 0.")
DRIFT_FOUND = Declared(
    "reconciliation_drift_found_total", "counter", "Differences between stores that reconciliation found.", ("kind", "drift")
)
DRIFT_REPAIRED = Declared("reconciliation_drift_repaired_total", "counter", "Differences that it repaired.", ("kind", "drift"))
RECONCILED_AT = Declared(
    "reconciliation_last_success_timestamp_seconds", "gauge", "When the last good run of a kind ended, in seconds since 1970.", ("kind",)
)
RECALL = Declared("ann_recall_at_10", "gauge", "Share of the ten nearest that the vector index finds, by the latest sample.")

# What a dispatcher or a worker's main process shows of itself, at METRICS_PORT; all but the machine's resources since its start.
_BOTH: tuple[Source, ...] = ("dispatcher", "worker")
STARTED_AT = Declared("nexus_process_start_timestamp_seconds", "gauge", "When the process started, in seconds since 1970.", (), _BOTH)
HEARD_AT = Declared(
    "nexus_process_heartbeat_timestamp_seconds",
    "gauge",
    "When it last said in PostgreSQL that it lives, in seconds since 1970; of a worker, when its child did.",
    (),
    _BOTH,
)
MEMORY = Declared("nexus_process_resident_memory_bytes", "gauge", "Memory that it and that its children hold.", ("part",), _BOTH)
CPU = Declared("nexus_process_cpu_seconds_total", "counter", "Time on a core; of the children that live now.", ("part",), _BOTH)
OPEN_FILES = Declared("nexus_process_open_files", "gauge", "Open file descriptors, sockets included.", ("part",), _BOTH)
DISPATCHED_BATCHES = Declared("embeddings_dispatched_batches_total", "counter", "Batches sent to the broker.", (), ("dispatcher",))
DISPATCHED_ROWS = Declared("embeddings_dispatched_rows_total", "counter", "Rows in batches sent to the broker.", (), ("dispatcher",))
BROKER_FAILURES = Declared("embeddings_broker_failures_total", "counter", "Times that the broker refused or was away.", (), ("dispatcher",))
REAPED_ROWS = Declared("embeddings_reaped_rows_total", "counter", "Rows taken back because their lease ended.", (), ("dispatcher",))
WORKER_BATCHES = Declared(
    "embeddings_worker_batches_total", "counter", "Batches that the child ended, or that it died of (lost).", ("outcome",), ("worker",)
)
WORKER_ROWS = Declared(
    "embeddings_worker_rows_total",
    "counter",
    "Rows of ended batches: done, failed, or no longer this worker's (lost).",
    ("outcome",),
    ("worker",),
)
CHILD_RESTARTS = Declared("embeddings_worker_child_restarts_total", "counter", "Children that ended and were replaced.", (), ("worker",))

DECLARED: tuple[Declared, ...] = tuple(value for value in dict(globals()).values() if isinstance(value, Declared))
"""Every metric, in the order of this file."""

_REQUESTS = Counter(API_REQUESTS.name, API_REQUESTS.help, API_REQUESTS.labels)
_LATENCY = Histogram(API_LATENCY.name, API_LATENCY.help, API_LATENCY.labels, buckets=API_LATENCY.buckets)
_CACHE = Counter(CACHE_REQUESTS.name, CACHE_REQUESTS.help, CACHE_REQUESTS.labels)
for _outcome in get_args(CacheOutcome):
    _CACHE.labels(_outcome)


def known_method(method: str) -> str:
    """Return the method, or OTHER in the place of one that a caller made up."""
    return method if method in _METHODS else "OTHER"


def observe_request(method: str, url_rule: str | None, status: int, seconds: float) -> None:
    """Count one answered request; `url_rule` is the route's pattern, None when no route matched."""
    method = known_method(method)
    rule = url_rule or UNMATCHED_RULE
    _REQUESTS.labels(method, rule, str(status)).inc()
    _LATENCY.labels(method, rule).observe(seconds)


def observe_cache(outcome: CacheOutcome) -> None:
    """Count one read from or write to the cache."""
    _CACHE.labels(outcome).inc()
