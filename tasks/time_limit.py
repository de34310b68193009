"""Ends a pool child whose batch takes too long."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from app.config import Settings
from app.queue.models import Batch

ENDED_BY = signal.SIGALRM.name
"""What the parent's WorkerLostError names when a child ended so."""


def time_limit_of(batch: Batch, settings: Settings) -> float:
    """Return how many seconds a batch may take: one long episode has more chunks than a batch of short ones."""
    beyond = max(0, batch.chars - settings.batch_chars)
    return settings.task_time_limit_seconds + beyond * settings.task_time_limit_per_character_seconds


@contextmanager
def ends_process_after(seconds: float) -> Iterator[None]:
    """Have the kernel end this process unless the block ends in time. Call it in the main thread.

    Nothing in Python could: a hung encoder may hold the interpreter. Celery's hard limit is not used, for it counts in the parent:
    while that waits for a broker that is away, a batch that ended long ago seems to run on, and the parent then kills an idle child,
    in billiard 4.3 at a moment when the child may hold a lock that they share, upon which the parent hangs for ever.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
