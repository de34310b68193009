"""The thread by which a process says that it is alive."""

import threading
from collections.abc import Callable

import structlog

from app.errors import NexusError

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Beats again and again until it is stopped, whatever one beat meets: who falls silent is given no more work.

    Args:
        beat: Says once that the process is alive.
        seconds: Between two of them.
    """

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._stopped = threading.Event()

    def start(self) -> None:
        """Beat from now on, for the first time after the pause between two."""
        threading.Thread(target=self._go_on, name="heartbeat", daemon=True).start()

    def now(self) -> None:
        """Beat once if that is possible."""
        try:
            self._beat()
        except NexusError as error:
            _log.warning("heartbeat_failed", error=error.message, action="check PostgreSQL; work goes on")
        except Exception as error:  # noqa: BLE001 - the thread must not end
            _log.error("heartbeat_failed", exc_info=error, action="nothing: the next one is tried in time; report it if it stays")

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()

    def _go_on(self) -> None:
        while not self._stopped.wait(self._seconds):
            self.now()
