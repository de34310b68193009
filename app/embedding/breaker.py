"""Stops the work of a model whose encoder fails for every text, so that it charges no row, and lets it go on once it is well."""

import threading
from collections.abc import Callable

import structlog

from app.embedding.encoder import EncodingFault

_log = structlog.get_logger(__name__)

PROBE = ["The quick brown fox jumps over the lazy dog.", "A fox."]
"""Texts that every sound encoder can encode: whoever fails at them fails at everything. Two, of unlike lengths: while nothing is
padded, attention can hide weights that are not numbers."""


Encode = Callable[[list[str]], object]
"""Encodes texts; raises when it cannot."""


def reason_of(error: BaseException) -> str:
    """Return a code and a class, never a text that could hold content."""
    if isinstance(error, EncodingFault):
        return f"{error.code}: {error.details.get('reason', type(error).__name__)}"[:200]
    if isinstance(error, MemoryError):
        return f"out_of_memory: {type(error).__name__}"
    return f"encoder_error: {type(error).__name__}"


class Breaker:
    """Open while a model's encoder is broken. Opening starts a thread that probes, at growing intervals, until the encoder is well.

    Args:
        model: The model's name, for the log.
        base_seconds: The first pause before a probe.
        max_seconds: The longest; each is twice the one before.

    Attributes:
        when_changed: Called after it opened and after it closed.
        when_hopeless: Called when a probe failed after the longest pause: a process that cannot recover is better replaced.
    """

    def __init__(self, model: str, base_seconds: float, max_seconds: float) -> None:
        self._log = _log.bind(model=model)
        self._base_seconds = base_seconds
        self._max_seconds = max_seconds
        self._closed = threading.Event()
        self._closed.set()
        self._stopped = threading.Event()
        self._opening = threading.Lock()
        self._reason: str | None = None
        self.when_changed: Callable[[], None] = lambda: None
        self.when_hopeless: Callable[[], None] = lambda: None

    @property
    def problem(self) -> str | None:
        """What people are told while it is open; None while it is closed."""
        return None if self._reason is None else f"the encoder fails for every text ({self._reason})"

    @property
    def reason(self) -> str | None:
        """A code and a class while it is open; None while it is closed."""
        return self._reason

    @staticmethod
    def probe(encode: Encode) -> str | None:
        """Encode the probe now and return None when that works, else the reason why not."""
        try:
            encode(PROBE)
        except Exception as error:  # noqa: BLE001
            # Whatever the model's libraries raise.
            return reason_of(error)
        return None

    def open(self, reason: str, encode: Encode) -> None:
        """Stop the model's work, for the reason that a probe of this encoder gave."""
        with self._opening:
            if self._reason is not None or self._stopped.is_set():
                return
            self._reason = reason
            self._closed.clear()
        self._log.error("encoder_broken", error=reason, action="no row was charged; see the worker's log and memory; it probes by itself")
        threading.Thread(target=self._recover, args=(encode,), name="breaker", daemon=True).start()
        self.when_changed()

    def wait_closed(self, seconds: float) -> bool:
        """Return whether the model may be used, after waiting for it at most so long."""
        return self._closed.wait(seconds)

    def stop(self) -> None:
        """Close for good and probe no more: the model is not in use, and a batch that still runs must not open it again."""
        with self._opening:
            self._stopped.set()
            self._reason = None
        self._closed.set()

    def _recover(self, encode: Encode) -> None:
        pause = self._base_seconds
        while not self._stopped.wait(pause):
            reason = self.probe(encode)
            if self._stopped.is_set():
                return
            if reason is None:
                self._close()
                return
            self._log.error("encoder_still_broken", error=reason, next_probe_in_seconds=min(self._max_seconds, pause * 2))
            if pause >= self._max_seconds:
                self.when_hopeless()
            pause = min(self._max_seconds, pause * 2)

    def _close(self) -> None:
        self._reason = None
        self._log.info("encoder_well_again")
        self.when_changed()
        self._closed.set()
