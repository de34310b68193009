"""The dispatcher's loop: claim, publish, reap, and sleep until the doorbell rings."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from app.config import Settings
from app.errors import DatabaseUnavailable
from app.observability.process_metrics import DispatcherCounts
from app.queue.models import Batch
from app.queue.service import QueueService
from app.queue.workers import this_process

_log = structlog.get_logger(__name__)

# While nothing can be claimed, because no worker runs or all have enough, every write still rings: without a rest the dispatcher
# looks after each, a sixth of what two cores do. The first ring after quiet is answered at once, so an idle stack stays fast.
_REST_STEP_SECONDS = 0.002
_LONGEST_REST_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0
"""While PostgreSQL or the broker is away, the longest time between two attempts."""
_UNREAD = "nothing, unless it goes on: then a worker's main process stands still, or nobody reads one of the queues; restart the workers"


class Broker(Protocol):
    """Where batches are sent. Either method may raise anything."""

    def unread(self) -> int:
        """Return how many messages lie there that no worker has taken."""

    def publish(self, batches: Sequence[Batch]) -> None:
        """Send batches. When it raises, some may be on their way: the rows of all are given back uncharged."""


Doorbell = Callable[[float], None]
"""Returns when the doorbell rings or after the given seconds."""


class Dispatcher:
    """Moves work from PostgreSQL to the broker. Any number may run; none leads.

    Args:
        queue: Claims and reaps.
        broker: Takes batches.
        wait_for_doorbell: Sleeps until there may be work.
        settings: Times.
        counts: Told what it does; None for nobody.
    """

    def __init__(
        self,
        queue: QueueService,
        broker: Broker,
        wait_for_doorbell: Doorbell,
        settings: Settings,
        counts: DispatcherCounts | None = None,
    ) -> None:
        self._queue = queue
        self._broker = broker
        self._counts = counts or DispatcherCounts()
        self._wait = wait_for_doorbell
        self._settings = settings
        self._identity = this_process("dispatcher")
        self._next_reap = 0.0
        self._next_beat = 0.0
        self._has_joined = False
        self._vain_rings = 0
        self._unread = 0
        self._broker_pause = settings.poll_seconds
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Dispatch until `stop` is set. An unreachable database is waited for, not died of."""
        self._stop = stop
        pause = self._settings.poll_seconds
        while not stop.is_set():
            try:
                self._keep_house()
                found_work = self.run_once()
                pause = self._settings.poll_seconds
            except DatabaseUnavailable as error:
                _log.warning("database_unavailable", error=error.message, retry_in_seconds=pause, action="check PostgreSQL")
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
                # Workers could not renew their leases either: they get the time to, before one is taken for dead.
                self._next_reap = time.monotonic() + self._settings.heartbeat_seconds
                stop.wait(pause)
                continue
            if found_work:
                self._vain_rings = 0
            else:
                self._sleep(stop)
        try:
            self._queue.leave(self._identity)
        except DatabaseUnavailable:
            _log.info("left_unannounced")

    def run_once(self) -> bool:
        """Claim and publish once, and return whether to look again at once: there was work, or the broker failed."""
        batches: list[Batch] = []
        try:
            self._unread = self._broker.unread()
        except Exception as error:  # noqa: BLE001
            self._rest(error, batches)
            return True
        batches = self._queue.claim(self._unread)
        try:
            if batches:
                self._broker.publish(batches)
        except Exception as error:  # noqa: BLE001
            self._rest(error, batches)
            return True
        self._broker_pause = self._settings.poll_seconds
        self._counts.sent(len(batches), sum(len(batch.claim.target_ids) for batch in batches))
        return bool(batches)

    def _rest(self, error: Exception, batches: Sequence[Batch]) -> None:
        """Give rows back and wait a while, longer each time: whatever the broker's client raised, the rows are safe.

        Some messages may have gone out and some not. Given back, the rows of either have spent their token, so a message that
        arrives after all matches nothing.
        """
        self._counts.broker_failures += 1
        _log.warning(
            "broker_failed",
            error=type(error).__name__,
            batches=len(batches),
            rows_given_back=self._queue.give_back(batch.claim for batch in batches) if batches else 0,
            retry_in_seconds=round(self._broker_pause, 2),
            action="check that the broker is up; nothing is lost",
        )
        # Not the doorbell: every write rings it, and none of them brings the broker back.
        self._stop.wait(self._broker_pause)
        self._broker_pause = min(_LONGEST_PAUSE_SECONDS, self._broker_pause * 2)

    def _sleep(self, stop: threading.Event) -> None:
        """Wait for the doorbell; the more rings in a row brought no work, the longer the rest after the next one."""
        started = time.monotonic()
        self._wait(self._settings.poll_seconds)
        if time.monotonic() - started >= self._settings.poll_seconds:
            self._vain_rings = 0
            return
        stop.wait(min(_LONGEST_REST_SECONDS, _REST_STEP_SECONDS * self._vain_rings))
        self._vain_rings += 1

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now >= self._next_reap:
            reaped = self._queue.reap()
            self._counts.reaped_rows += reaped
            if reaped and self._unread:
                _log.warning("messages_unread", messages=self._unread, action=_UNREAD)
            self._next_reap = now + self._settings.reaper_seconds
        if now >= self._next_beat:
            self._queue.beat(self._identity) if self._has_joined else self._queue.join(self._identity)
            self._has_joined = True
            self._counts.heard()
            self._next_beat = now + self._settings.heartbeat_seconds
