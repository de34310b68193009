"""What Grafana would ask Prometheus: every query of every dashboard, and of what it marks in time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.factories.documents import ROOT

Json = dict[str, Any]

FOLDER = ROOT / "grafana" / "dashboards"
DASHBOARDS: dict[str, Json] = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}

SCRAPED_FROM_OTHERS = {
    *("up", "ALERTS"),
    *("flower_events_total", "flower_worker_online", "flower_worker_number_of_currently_executing_tasks"),
    *("celery_task_succeeded_total", "celery_task_failed_total", "celery_task_retried_total"),
    *("celery_queue_length", "celery_active_worker_count"),
}
"""What Prometheus, Flower and celery-exporter make."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One query.

    Attributes:
        instant: Whether it is asked of this moment only, not of the time that is shown.
    """

    dashboard: str
    panel: str
    expression: str
    instant: bool


def panels(dashboard: Json) -> list[Json]:
    """Return a dashboard's panels without its rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def every_query() -> Iterator[Asked]:
    """Return the queries of every panel, and of the marks on the axis of time."""
    for dashboard in DASHBOARDS.values():
        for panel in panels(dashboard):
            yield from (Asked(dashboard["title"], panel["title"], target["expr"], target["instant"]) for target in panel["targets"])
        for mark in dashboard["annotations"]["list"]:
            yield Asked(dashboard["title"], mark["name"], mark["target"]["expr"], False)


def with_values(expression: str) -> str:
    """Return an expression with Grafana's variables as they are at a scrape interval of 15 s: four of those."""
    return expression.replace("$__rate_interval", "1m")
