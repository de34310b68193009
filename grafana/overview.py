"""The dashboard "NEXUS Cerebro Overview": is anything wrong, and where."""

from grafana.layout import Row, dashboard
from grafana.panels import (
    COUNT,
    CRITICAL,
    FIRST,
    GOOD,
    RATE,
    SECOND,
    SECONDS,
    SHARE,
    THIRD,
    WARNING,
    YES_NO,
    Column,
    Json,
    Panel,
    Query,
    Scale,
    graph,
    stat,
    table,
)

UID, TITLE = "nexus-overview", "NEXUS Cerebro Overview"
_FLAG = Scale("bool_yes_no", None, words=YES_NO, nothing="not scraped")


def quantiles(histogram: str, by: str, window: str = "$__rate_interval") -> list[Query]:
    """Return the median, the 95th and the 99th percentile of a histogram that lies in PostgreSQL.

    Every instance of the API says the same, so they are joined by max before what they say of different things is added.
    """
    buckets = f"sum by (le) (max by (le, {by}) (rate({histogram}_bucket[{window}])))"
    named = ((0.5, "half within", FIRST), (0.95, "95 % within", SECOND), (0.99, "99 % within", WARNING))
    return [Query(f"histogram_quantile({share}, {buckets})", name, colour) for share, name, colour in named]


def _now() -> list[Panel]:
    return [
        stat(
            "Alerts that fire: 0",
            "The table below names them. When something is wrong, read on from left to right.",
            COUNT,
            Query('count(ALERTS{alertstate="firing"}) or vector(0)'),
            flag=True,
        ),
        stat(
            "API answers: yes",
            "Each address of the API, as Prometheus found it at its last scrape.",
            _FLAG,
            Query('up{job="nexus-api"}', "{{instance}}"),
            alert="APIDown",
        ),
        stat("PostgreSQL readable: yes", "Whether every API process could read it.", _FLAG, alert="DatabaseUnreadable", runbook="restore"),
        stat(
            "Episodes unaccounted for: 0",
            "Accepted episodes that are neither searchable, pending, processing, dead nor deleted.",
            COUNT,
            alert="AccountingIdentityBroken",
        ),
        stat(
            "Workers at work: 1 or more",
            "Heard from lately, and without a problem of their own.",
            COUNT,
            alert="EmbeddingsWorkerDown",
            runbook="embeddings-stuck",
        ),
        stat("Dispatchers: 1 or more", "Heard from lately.", COUNT, alert="EmbeddingsDispatcherDown", runbook="embeddings-stuck"),
        table(
            "Which alerts fire: none",
            "What each means and what to do stands on the panel that has its line, and in compose/prometheus/rules.yml.",
            [Query('sum by (severity, alertname) (ALERTS{alertstate="firing"})', instant=True)],
            [Column("severity", "Severity"), Column("alertname", "Alert")],
            ["Time", "Value"],
            width=12,
            height=6,
        ),
        stat(
            "Everything answers its scrape: yes",
            "Of each kind of process, whether all that Prometheus knows of answered. Look at the process's log and restart it.",
            _FLAG,
            Query("min by (job) (up)", "{{job}}"),
            width=12,
            height=6,
            names=True,
        ),
    ]


def _queue() -> list[Panel]:
    return [
        graph(
            "Rows that wait for their vector: few, or falling",
            "Words find the episodes meanwhile. It grows while more is written than is embedded.",
            COUNT,
            Query('max(embeddings_queue_depth{state="processing"})', "in work", SECOND),
            alert="EmbeddingsQueueDepthHigh",
            legend="waiting",
            colour=FIRST,
            runbook="scale-workers",
        ),
        graph(
            "Age of the oldest that waits: seconds",
            "It rises steadily when nobody works, or when low work is passed over.",
            SECONDS,
            alert="OldestPendingTooOld",
            legend="oldest",
            colour=FIRST,
            runbook="embeddings-stuck",
        ),
        graph(
            "Embedded per second: as much as is written",
            "Rows that got their vector. Zero while rows wait means that workers or dispatcher do not work.",
            RATE,
            Query("max by (target_kind) (rate(embeddings_processed_total[$__rate_interval]))", "{{target_kind}}"),
            stacked=True,
            runbook="embeddings-stuck",
        ),
        graph(
            "From written to found by meaning: under half a second when idle",
            "From when a text was enqueued to its vector. Under a backlog it is the wait; add workers.",
            SECONDS,
            *quantiles("embeddings_time_to_searchable_seconds", "target_kind"),
            width=12,
            runbook="scale-workers",
        ),
        graph(
            "Workers at work, and advised: at least as many as advised",
            "How many would drain the backlog in AUTOSCALE_DRAIN_MINUTES. The embedded stack follows it within WORKER_MIN and WORKER_MAX.",
            COUNT,
            Query("max(embeddings_workers_advised)", "advised", WARNING),
            alert="EmbeddingsWorkerDown",
            legend="at work",
            colour=GOOD,
            width=12,
            runbook="scale-workers",
        ),
    ]


def _api() -> list[Panel]:
    errors = 'rate(api_requests_total{status=~"5.."}[5m])'
    routes = ("sum by (url_rule) (rate(api_requests_total[5m]))", *(_of_routes(share) for share in (0.5, 0.95, 0.99)))
    shares = f"(sum by (url_rule) ({errors}) or 0 * sum by (url_rule) (rate(api_requests_total[5m]))) / {routes[0]}"
    return [
        graph(
            "Requests per second by route: as usual",
            "The six busiest routes. A sudden zero while agents are at work means that they do not get through.",
            Scale("reqps"),
            Query("topk(6, sum by (url_rule) (rate(api_requests_total[$__rate_interval])))", "{{url_rule}}"),
            stacked=True,
        ),
        graph(
            "Answers that are errors, per second: no 5xx",
            "503 says that PostgreSQL or the encoder was not there, 500 is a defect: find it by request_id in the API's log. "
            "Much 401, 403 or 429 is a client with a wrong or busy key; 404 and 422 are clients' mistakes.",
            Scale("reqps"),
            Query('sum by (status) (rate(api_requests_total{status=~"[45].."}[$__rate_interval]))', "{{status}}"),
            stacked=True,
        ),
        graph(
            "Time to answer, all routes: 99 % within a second",
            "Which route it is stands in the table below.",
            SECONDS,
            Query("histogram_quantile(0.95, sum by (le) (rate(api_latency_seconds_bucket[5m])))", "95 % within", SECOND),
            Query("histogram_quantile(0.5, sum by (le) (rate(api_latency_seconds_bucket[5m])))", "half within", FIRST),
            alert="APIHighLatency",
            legend="99 % within",
            colour=WARNING,
        ),
        table(
            "Routes, the slowest first: every share of 5xx is 0",
            "Over five minutes. A slow route of many: look at the machine's load and at PostgreSQL; a slow search: at the API's cores.",
            [Query(expression, instant=True) for expression in (*routes, shares)],
            [
                Column("url_rule", "Route"),
                Column("Value #A", "Requests", Scale("reqps")),
                Column("Value #E", "5xx", Scale("percentunit")),
                Column("Value #B", "Half within", SECONDS),
                Column("Value #C", "95 % within", SECONDS),
                Column("Value #D", "99 % within", SECONDS),
            ],
            ["Time"],
            width=16,
            height=8,
        ),
        graph(
            "Time to answer by route: 95 % within half a second",
            "The six slowest routes.",
            SECONDS,
            Query(f"topk(6, {_of_routes(0.95, '$__rate_interval')})", "{{url_rule}}"),
        ),
    ]


def _of_routes(share: float, window: str = "5m") -> str:
    return f"histogram_quantile({share}, sum by (le, url_rule) (rate(api_latency_seconds_bucket[{window}])))"


def _dead() -> list[Panel]:
    return [
        stat(
            "Dead rows now: 0",
            "Texts that no attempt could embed; words find them. `python -m app queue dead` shows them by cause, "
            "`python -m app queue replay` embeds them once the cause is gone.",
            COUNT,
            Query('max(embeddings_queue_depth{state="dead"})'),
            flag=True,
            height=8,
            runbook="replay-dead-rows",
        ),
        stat(
            "Died in an hour: at most 10",
            "A row that dies again counts again.",
            COUNT,
            alert="EmbeddingsDeadRows",
            height=8,
            runbook="replay-dead-rows",
        ),
        graph(
            "Rows that die per second, by cause: none",
            "worker_lost and out_of_memory: a text kills its worker, or the machine has too little memory; "
            "time_limit_exceeded: it is too slow; the others: the worker's log says why.",
            RATE,
            Query("max by (cause) (rate(embeddings_dead_total[5m]))", "{{cause}}"),
            alert="EmbeddingsHighDLQRate",
            legend="all",
            runbook="replay-dead-rows",
        ),
        graph(
            "Accounting identity: always 0",
            "Accepted episodes less those that are searchable, pending, processing, dead or deleted; too few and too many both count.",
            Scale("short", None, decimals=0),
            Query("max(last_over_time(accounting_identity_drift[5m]))", "accepted less accounted for", FIRST),
            alert="AccountingIdentityBroken",
            legend="off by",
        ),
    ]


def _grown(counter: str) -> str:
    """Return by how much a counter in PostgreSQL grew within the hour; `increase` would not see the first of a new kind of drift."""
    now = f"sum by (kind) (max by (kind, drift) ({counter}))"
    return f"{now} - (sum by (kind) (max by (kind, drift) ({counter} offset 1h)) or 0 * {now})"


def _stores() -> list[Panel]:
    hits = 'sum(rate(cache_requests_total{outcome="hit"}[$__rate_interval]))'
    reads = 'sum(rate(cache_requests_total{outcome=~"hit|miss|unavailable"}[$__rate_interval]))'
    return [
        graph(
            "Reads answered from the cache: most",
            "Of working memory and of recent episodes; PostgreSQL answers the others. "
            "Low with much `miss`: lists change faster than they are read.",
            SHARE,
            Query(f"{hits} / {reads}", "from the cache", GOOD),
        ),
        graph(
            "Cache by outcome: nothing unavailable, nothing failed",
            "unavailable and failed say that Redis did not answer; PostgreSQL serves, and reconciliation repairs. Look at Redis.",
            RATE,
            *(
                Query(f'sum(rate(cache_requests_total{{outcome="{outcome}"}}[$__rate_interval]))', outcome, colour)
                for outcome, colour in (
                    ("hit", GOOD),
                    ("miss", FIRST),
                    ("written", SECOND),
                    ("unavailable", WARNING),
                    ("failed", CRITICAL),
                )
            ),
        ),
        graph(
            "Since the last good comparison of the stores: under two hours",
            "Beat compares working memory with Redis, and memories with their vectors.",
            SECONDS,
            Query("time() - max by (kind) (reconciliation_last_success_timestamp_seconds)", "{{kind}}"),
            alert="ReconciliationTooOld",
            legend="oldest",
            colour=THIRD,
            runbook="backfill",
        ),
        graph(
            "Differences between the stores, per hour: all that are found are repaired",
            "A few after a crash or a restored dump are repaired by themselves; a steady flow has a cause: `python -m app reconcile runs`. "
            "In the first hour of Prometheus: all that were ever found.",
            COUNT,
            Query(_grown("reconciliation_drift_found_total"), "{{kind}}: found"),
            Query(_grown("reconciliation_drift_repaired_total"), "{{kind}}: repaired"),
            width=12,
            runbook="backfill",
        ),
        graph(
            "Of the ten nearest, how many the vector index finds: 95 % or more",
            "Against an exact scan, by samples of large agents; nothing is shown while no agent is large enough for the index.",
            Scale("percentunit", 0.8, 1, nothing="no agent is large enough"),
            alert="IndexRecallLow",
            legend="recall at 10",
            colour=FIRST,
            width=12,
        ),
    ]


def build(others: dict[str, str]) -> Json:
    """Return the dashboard; `others` are titles of other dashboards by their uid."""
    rows = [
        Row("Is anything wrong now?", _now()),
        Row("Do memories get their vectors?", _queue()),
        Row("Do agents get answers?", _api()),
        Row("Is anything dead or lost?", _dead()),
        Row("Do the stores agree?", _stores()),
    ]
    text = "Whether anything is wrong, and where: alerts, queue, API, dead rows, stores. Dashed lines are where alerts fire."
    runbooks = ["embeddings-stuck", "scale-workers", "replay-dead-rows", "backfill", "restore", "rotate-secrets"]
    return dashboard(UID, TITLE, text, others=others, runbooks=runbooks, rows=rows)
