"""How soon a worker's parent notices that a child is gone."""

from typing import Any

from celery.bootsteps import StartStopStep

_SECONDS = 1.0


class PoolWatch(StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Has the pool look after its children every second.

    Celery looks when a child's pipe closes, which may be a moment before the child can be reaped; it then finds nobody gone, and its
    own next look is up to five seconds later. Until then the rows of a killed child wait.
    """

    requires = ("celery.worker.components:Pool", "celery.worker.components:Hub")

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Look every second from now on."""
        hub.call_repeatedly(_SECONDS, worker.pool.maintain_pool)
