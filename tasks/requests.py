"""A task as the worker's main process sees it: counts what became of each batch, for that process's metrics."""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

from celery.worker.request import Request as CelerysRequest

from app.observability.process_metrics import WorkerCounts
from tasks.names import EMBED_BATCH

_COUNT = re.compile(r"'(\w+)': (\d+)")

Answer = tuple[bool, Any, float]
"""Of a child: whether the task raised, what it returned as its repr, and the seconds that it took."""


class Request(CelerysRequest):  # type: ignore[misc]  # Celery has no types
    """Celery's own, which also counts."""

    counts: ClassVar[WorkerCounts] = WorkerCounts()
    """Of this process."""

    def __init_subclass__(cls) -> None:
        """Have the class that Celery derives for each task count: it takes answers past this one's method."""
        super().__init_subclass__()
        cls.on_success = _counting(cls.on_success)

    def on_failure(self, *args: Any, **kwargs: Any) -> Any:
        """Learn that the child died, or that the task raised."""
        if self.name == EMBED_BATCH:
            self.counts.lost()
        return super().on_failure(*args, **kwargs)


def _counting(take: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method that takes a child's answer, counting first."""

    @wraps(take)
    def on_success(request: Request, answer: Answer, **kwargs: Any) -> Any:
        has_failed, returned, _ = answer
        if request.name == EMBED_BATCH and not has_failed:
            request.counts.ended((outcome, int(count)) for outcome, count in _COUNT.findall(str(returned)))
        return take(request, answer, **kwargs)

    return on_success
