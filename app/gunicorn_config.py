"""gunicorn's configuration: processes and threads, limits, JSON logs, and metrics that several processes share."""

import os
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

from app import gunicorn_problems
from app.config import load_settings
from app.observability.logs import configure_logging

_settings = load_settings()
gunicorn_problems.install()

# prometheus_client picks its storage when it is first imported, so this must be set before: in the
# processes that gunicorn forks the application, and with it the client, is imported later.
_metrics_dir = os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str((_settings.data_dir / "metrics" / "api").absolute()))


class JsonLogger(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's own lines through the same JSON as every other line."""

    def setup(self, cfg: Any) -> None:
        """Take the place of gunicorn's handlers."""
        configure_logging(_settings, "api")
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.access_log.disabled = True

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a warning; of a malformed request without what gunicorn quotes of it, which may be content or a key."""
        if msg.startswith("Invalid request from"):
            msg, args = "a malformed request was refused", ()
        super().warning(msg, *args, **kwargs)


bind = f"{_settings.host}:{_settings.port}"
proc_name = "nexus-api"
worker_class = "app.gunicorn_worker.LingeringThreadWorker"
workers = _settings.api_processes
threads = _settings.api_threads
timeout = 60
graceful_timeout = 20
keepalive = 30
preload_app = False  # No model, no connection and no thread may exist before the fork.
control_socket_disable = True  # It would lie in the home folder, shared by every gunicorn of this user.
logger_class = JsonLogger
accesslog = None  # The application writes one line per request, by route and without content.
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 8190


def on_starting(_server: Any) -> None:
    """Forget the counters of an earlier run: its processes are gone, and Prometheus expects a restart at zero."""
    folder = Path(_metrics_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()


def worker_exit(_server: Any, _worker: Any) -> None:
    """In a worker that ends: send the last spans."""
    from app.observability import tracing

    tracing.stop()


def child_exit(_server: Any, worker: Any) -> None:
    """Drop the gauges of a process that is gone; its counters stay in the sums."""
    # Not imported earlier: see PROMETHEUS_MULTIPROC_DIR above.
    from prometheus_flask_exporter.multiprocess import GunicornPrometheusMetrics

    GunicornPrometheusMetrics.mark_process_dead_on_child_exit(worker.pid)
