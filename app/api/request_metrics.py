"""Request metrics of the API: prometheus-flask-exporter under the names that the project's dashboards use."""

import time
from typing import Any

from flask import Flask, Response, g, request
from prometheus_flask_exporter import PrometheusMetrics

from app.observability import metrics


class RequestMetrics(PrometheusMetrics):  # type: ignore[misc]  # the library ships no types
    """Counts every answer of the application, also of unmatched routes and refused keys, correctly over several gunicorn processes.

    The library's own defaults have names of their own and label by path; its exposition, which sums the processes of gunicorn
    when PROMETHEUS_MULTIPROC_DIR is set, is used as it is.
    """

    def __init__(self, app: Flask) -> None:
        super().__init__(app, path=None, group_by="url_rule")

    def export_defaults(self, *_: Any, app: Flask | None = None, **__: Any) -> None:
        """Watch every request of the application; the library calls this when it is set up."""
        watched = app or self.app
        watched.before_request(_begin)
        watched.after_request(_count)

    def exposition(self) -> bytes:
        """Return the metrics of all API processes in Prometheus' text format."""
        text, _ = self.generate_metrics()
        return str(text).encode()


def _begin() -> None:
    g.metrics_started = time.perf_counter()


def _count(response: Response) -> Response:
    rule = request.url_rule.rule if request.url_rule is not None else None
    metrics.observe_request(request.method, rule, response.status_code, time.perf_counter() - g.metrics_started)
    return response
