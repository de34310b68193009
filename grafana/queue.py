"""The dashboard "Queue and workers": where rows wait, who works, and what it takes of the machine."""

from grafana.layout import Row, dashboard
from grafana.overview import quantiles
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
    Json,
    Panel,
    Query,
    Scale,
    graph,
    stat,
)

UID, TITLE = "nexus-queue", "Queue and workers"
_DONE = "sum(max by (target_kind) (rate(embeddings_processed_total[5m])))"


def _rate(metric: str, by: str = "") -> str:
    """Return the rate of what each process counts of itself, over all of them."""
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}[$__rate_interval]))"


def _drains() -> list[Panel]:
    return [
        stat(
            "Waiting: 1,000 or fewer",
            "Rows without a vector that nobody has claimed.",
            COUNT,
            alert="EmbeddingsQueueDepthHigh",
            runbook="scale-workers",
        ),
        stat(
            "Oldest that waits: seconds",
            "Since when the row that waits longest is there.",
            SECONDS,
            alert="OldestPendingTooOld",
            runbook="embeddings-stuck",
        ),
        stat(
            "Done in, at this pace: minutes",
            "What waits, divided by what was done per second in the last five minutes.",
            Scale("s", nothing="nothing done"),
            Query(f'max(embeddings_queue_depth{{state="pending"}}) / ({_DONE} > 0)'),
            runbook="scale-workers",
        ),
        stat(
            "Dead: 0",
            "`python -m app queue dead` shows them by cause.",
            COUNT,
            Query('max(embeddings_queue_depth{state="dead"})'),
            flag=True,
            runbook="replay-dead-rows",
        ),
        stat(
            "Workers: 1 or more", "Heard from lately, without a problem.", COUNT, alert="EmbeddingsWorkerDown", runbook="embeddings-stuck"
        ),
        stat("Dispatchers: 1 or more", "Heard from lately.", COUNT, alert="EmbeddingsDispatcherDown", runbook="embeddings-stuck"),
        graph(
            "Rows by state: waiting falls, in work follows",
            "Waiting without any in work: the dispatcher or the broker does not work. In work that does not fall: the workers do not.",
            COUNT,
            Query('max(embeddings_queue_depth{state="processing"})', "in work", SECOND),
            Query('max(embeddings_queue_depth{state="dead"})', "dead", CRITICAL),
            alert="EmbeddingsQueueDepthHigh",
            legend="waiting",
            colour=FIRST,
            runbook="embeddings-stuck",
        ),
        graph(
            "Done per second by kind: steady while rows wait",
            "Counted in PostgreSQL, in the transaction that stores the vector.",
            RATE,
            Query("max by (target_kind) (rate(embeddings_processed_total[$__rate_interval]))", "{{target_kind}}"),
            stacked=True,
            runbook="scale-workers",
        ),
        graph(
            "Workers at work, and advised: at least as many as advised",
            "How many would drain the backlog in AUTOSCALE_DRAIN_MINUTES, weighed by its characters.",
            COUNT,
            Query("max(embeddings_workers_advised)", "advised", WARNING),
            Query("max(embeddings_dispatchers_alive)", "dispatchers", THIRD),
            alert="EmbeddingsWorkerDown",
            legend="at work",
            colour=GOOD,
            runbook="scale-workers",
        ),
    ]


def _takes() -> list[Panel]:
    within = 'sum(max by (target_kind) (increase(embeddings_time_to_searchable_seconds_bucket{le="0.5"}[1h])))'
    of = "sum(max by (target_kind) (increase(embeddings_time_to_searchable_seconds_count[1h])))"
    return [
        graph(
            "Written to found by meaning: under half a second when idle",
            "The wait in PostgreSQL and in the broker, and the work.",
            SECONDS,
            *quantiles("embeddings_time_to_searchable_seconds", "target_kind"),
            runbook="scale-workers",
        ),
        graph(
            "The work alone: steady",
            "From the start of a row's last attempt to its vector; the rows of a batch begin and end together. "
            "When it grows, texts became longer or the cores are busy elsewhere.",
            SECONDS,
            *quantiles("embeddings_processing_latency", "target_kind"),
        ),
        graph(
            "Found by meaning within 0.5 s, last hour: most, when idle",
            "Of the rows that got their vector in the hour before. A backlog takes it down for an hour.",
            SHARE,
            Query(f"{within} / {of}", "within half a second", GOOD),
        ),
    ]


def _dispatcher() -> list[Panel]:
    return [
        graph(
            "Sent to the broker per second: as much as is written",
            "By all dispatchers. Zero while rows wait: look at the dispatcher's log, then at the broker.",
            RATE,
            Query(_rate("embeddings_dispatched_rows_total"), "rows", FIRST),
            Query(_rate("embeddings_dispatched_batches_total"), "batches", SECOND),
            runbook="embeddings-stuck",
        ),
        graph(
            "Rows in a batch: more under load",
            "One when idle, for speed; tens under a backlog. One under a backlog: texts are long.",
            Scale("short"),
            Query(f"{_rate('embeddings_dispatched_rows_total')} / {_rate('embeddings_dispatched_batches_total')}", "rows", FIRST),
        ),
        graph(
            "Broker failures and rows taken back, per hour: none",
            "A failure: the broker refused or was away; rows wait in PostgreSQL until it is back. "
            "Taken back: a worker died or was cut off, and its lease ended.",
            COUNT,
            Query("sum(increase(embeddings_broker_failures_total[1h]))", "broker failures", WARNING),
            Query("sum(increase(embeddings_reaped_rows_total[1h]))", "rows taken back", FIRST),
            runbook="embeddings-stuck",
        ),
    ]


def _workers() -> list[Panel]:
    return [
        graph(
            "Rows that workers end, per second: done, not failed",
            "failed: will be tried again, or is dead; lost: somebody else had taken it meanwhile, which costs the time and nothing else.",
            RATE,
            *(
                Query(_rate(f'embeddings_worker_rows_total{{outcome="{outcome}"}}'), outcome, colour)
                for outcome, colour in (("done", GOOD), ("failed", CRITICAL), ("lost", WARNING))
            ),
            runbook="replay-dead-rows",
        ),
        graph(
            "Batches whose worker died, and new children, per hour: none",
            "A child that dies takes its batch with it; its rows are tried again, each suspect alone. "
            "Look for out of memory in the kernel's log.",
            COUNT,
            Query('sum(increase(embeddings_worker_batches_total{outcome="lost"}[1h]))', "batches lost", CRITICAL),
            Query("sum(increase(embeddings_worker_child_restarts_total[1h]))", "children replaced", WARNING),
        ),
        graph(
            "Done per second by worker: all about the same",
            "One that does nothing while the others work is stuck or waits for its model: restart it; its leases end by themselves.",
            RATE,
            Query('rate(embeddings_worker_rows_total{outcome="done"}[$__rate_interval])', "{{instance}}"),
            stacked=True,
        ),
        graph(
            "Since each was heard from: under half a minute",
            "Each says every HEARTBEAT_SECONDS that it lives. One that runs and is not heard from hangs, or cannot reach PostgreSQL.",
            SECONDS,
            Query("time() - nexus_process_heartbeat_timestamp_seconds", "{{job}} {{instance}}"),
            width=12,
            runbook="embeddings-stuck",
        ),
        graph(
            "Since each started: longer each minute",
            "A saw is a process that starts over and over; its log says why.",
            SECONDS,
            Query("time() - nexus_process_start_timestamp_seconds", "{{job}} {{instance}}"),
            width=12,
        ),
    ]


def _celery() -> list[Panel]:
    return [
        graph(
            "Tasks per second, by Flower: all start, all succeed",
            "Received and not started: a worker is busy or stuck. "
            "A task that failed says so in the worker's log; its rows are tried again.",
            RATE,
            Query(_rate('flower_events_total{type=~"task-.*"}', "type"), "{{type}}"),
        ),
        graph(
            "Tasks at work, by Flower: up to one a worker",
            "Flower forgets what was before its own start.",
            COUNT,
            Query("sum(flower_worker_number_of_currently_executing_tasks)", "at work", FIRST),
            Query("sum(flower_worker_online)", "workers", GOOD),
        ),
        graph(
            "Tasks per second, by celery-exporter: succeeded, not failed",
            "By name of the task; only where celery-exporter runs (compose/).",
            RATE,
            Query(_rate("celery_task_succeeded_total", "name"), "{{name}}"),
            Query(_rate("celery_task_failed_total"), "failed", CRITICAL),
            Query(_rate("celery_task_retried_total"), "retried", WARNING),
        ),
        graph(
            "Messages in the broker, by queue: few",
            "The backlog is in PostgreSQL; the broker holds a window of it. Many that stay: workers do not consume. "
            "Only where celery-exporter runs.",
            COUNT,
            Query("max by (queue_name) (celery_queue_length)", "{{queue_name}}"),
            width=12,
            runbook="embeddings-stuck",
        ),
        graph(
            "Workers that consume each queue: all of them",
            "Zero: nobody takes what is sent there, and the worker's command lacks that queue. Only where celery-exporter runs.",
            COUNT,
            Query("max by (queue_name) (celery_active_worker_count)", "{{queue_name}}"),
            width=12,
        ),
    ]


def _machine() -> list[Panel]:
    return [
        graph(
            "Memory, with its children: steady",
            "A worker's model is in its child: about 0.8 GB. Growth over days is a leak: restart the process, and say so.",
            Scale("bytes"),
            Query("sum by (job, instance) (nexus_process_resident_memory_bytes)", "{{job}} {{instance}}"),
        ),
        graph(
            "Cores: a worker up to its threads, others little",
            "All workers at their limit and rows waiting: more workers help only if the machine has idle cores.",
            Scale("short"),
            Query("sum by (job, instance) (rate(nexus_process_cpu_seconds_total[$__rate_interval]))", "{{job}} {{instance}}"),
            runbook="scale-workers",
        ),
        graph(
            "Open files: steady",
            "Steady growth is a leak; at the process's limit nothing more can be opened.",
            COUNT,
            Query("sum by (job, instance) (nexus_process_open_files)", "{{job}} {{instance}}"),
        ),
    ]


def build(others: dict[str, str]) -> Json:
    """Return the dashboard; `others` are titles of other dashboards by their uid."""
    rows = [
        Row("Does the queue drain?", _drains()),
        Row("How long does a row take?", _takes()),
        Row("Does the dispatcher send?", _dispatcher()),
        Row("Do workers finish?", _workers()),
        Row("What do Celery and the broker say?", _celery()),
        Row("What do the processes take of the machine?", _machine()),
    ]
    text = "Where rows wait, who works, and what it takes of the machine. Dashed lines are where alerts fire."
    runbooks = ["embeddings-stuck", "scale-workers", "replay-dead-rows", "backfill"]
    return dashboard(UID, TITLE, text, others=others, runbooks=runbooks, rows=rows)
