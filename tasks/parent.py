"""Whether the main process of a worker is at work: its children cannot tell from the work that does not come."""

import os
import time

import psutil

_STILL_SECONDS = 10.0
"""The main process looks after its children every second (tasks/pool_watch.py), so it is switched to at least as often."""


class Parent:
    """The main process of the worker whose child this process is; it takes the messages."""

    def __init__(self) -> None:
        self._process = psutil.Process(os.getppid())
        self._turns = -1
        self._moved_at = 0.0

    @property
    def problem(self) -> str | None:
        """Why it takes no messages: stopped, or held up, since it was last looked at and for ten seconds; None when it is well."""
        try:
            turns = sum(self._process.num_ctx_switches())
        except psutil.Error:
            return "worker_deaf: its main process is gone"
        now = time.monotonic()
        if turns != self._turns:
            self._turns, self._moved_at = turns, now
        if now - self._moved_at < _STILL_SECONDS:
            return None
        return "worker_deaf: its main process stands still"
