"""A task as the worker's main process sees it: counts what became of each batch, for that process's metrics."""

import re
from typing import Any, ClassVar

from celery.worker.request import Request as CelerysRequest

from app.observability.process_metrics import WorkerCounts
from tasks.names import EMBED_BATCH

_COUNT = re.compile(r"'(\w+)': (\d+)")


class Request(CelerysRequest):  # type: ignore[misc]  # Celery has no types
    """Celery's own, which also counts."""

    counts: ClassVar[WorkerCounts] = WorkerCounts()
    """Of this process."""

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float], **kwargs: Any) -> Any:
        """Take an answer of the child; what a task returned comes as its repr."""
        has_failed, returned, _ = failed__retval__runtime
        if self.name == EMBED_BATCH and not has_failed:
            self.counts.ended((outcome, int(count)) for outcome, count in _COUNT.findall(str(returned)))
        return super().on_success(failed__retval__runtime, **kwargs)

    def on_failure(self, *args: Any, **kwargs: Any) -> Any:
        """Learn that the child died, or that the task raised."""
        if self.name == EMBED_BATCH:
            self.counts.lost()
        return super().on_failure(*args, **kwargs)
