"""How soon a worker's parent notices that a child is gone."""

from typing import Any

import structlog
from celery.bootsteps import StartStopStep

_log = structlog.get_logger(__name__)

_SECONDS = 1.0


class PoolWatch(StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Has the pool look after its children every second.

    Celery looks when a child's pipe closes, which may be a moment before the child can be reaped; it then finds nobody gone, and its
    own next look is up to five seconds later. Until then the rows of a killed child wait.
    """

    requires = ("celery.worker.components:Pool", "celery.worker.components:Hub")

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Look every second from now on."""

        def look() -> None:
            try:
                worker.pool.maintain_pool()
            except OSError as error:
                # The event loop would take it for a loss of the broker, and begin anew each second.
                _log.error("child_not_started", error=type(error).__name__, action="the machine lacks processes or memory; tried again")

        hub.call_repeatedly(_SECONDS, look)
