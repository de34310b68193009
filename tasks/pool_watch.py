"""How soon a worker's parent notices that a child is gone."""

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import structlog
from celery.bootsteps import StartStopStep

from tasks.requests import Request

_log = structlog.get_logger(__name__)

_SECONDS = 1.0


class PoolWatch(StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Has the pool look after its children every second, and those that died forgotten.

    Celery looks when a child's pipe closes, which may be a moment before the child can be reaped; it then finds nobody gone, and its
    own next look is up to five seconds later. Until then the rows of a killed child wait. And until its silence is noticed, work is
    published for a child that is dead while its successor still loads.
    """

    when_gone: ClassVar[list[Callable[[], None]]] = []
    """What is done, in a thread of its own, after a child has died."""

    requires = ("celery.worker.components:Pool", "celery.worker.components:Hub")

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Look every second from now on."""
        children: set[int] = set()

        def look() -> None:
            try:
                worker.pool.maintain_pool()
                present = set(worker.pool.info["processes"])
                if children - present:
                    # Not here: the event loop must not wait for a database.
                    Request.counts.child_restarts += len(children - present)
                    for action in self.when_gone:
                        threading.Thread(target=action, name="burial", daemon=True).start()
                children.clear()
                children.update(present)
            except OSError as error:
                # The event loop would take it for a loss of the broker, and begin anew each second.
                _log.error("child_not_started", error=type(error).__name__, action="the machine lacks processes or memory; tried again")

        hub.call_repeatedly(_SECONDS, look)
