"""How many workers would drain the backlog in a given time: arithmetic on what the workers themselves measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_LEAST_RATE = 0.001
"""Episodes a second. A worker that did less was not held up by the work, and says nothing about what another one would do."""


@dataclass(frozen=True, slots=True)
class Advice:
    """How many workers the backlog needs, and what that follows from.

    Attributes:
        workers_advised: How many would drain the backlog in `drain_minutes`; at least 1, so that an idle queue keeps one model loaded.
        workers_at_work: Live workers without a problem; one with a problem takes no work and does not count.
        pending: Rows that wait.
        drain_minutes: The time that was asked for.
        worker_items_per_second: Median rate of the workers at work, in episodes a second while busy; None when none has measured
            one yet, and the advice is then the present number.
        minutes_to_drain: How long the workers at work need for what is pending; None when that cannot be said.
        reason: The same in one sentence.
    """

    workers_advised: int
    workers_at_work: int
    pending: int
    drain_minutes: float
    worker_items_per_second: float | None
    minutes_to_drain: float | None
    reason: str

    @property
    def is_measured(self) -> bool:
        """Whether the number follows from the backlog, and is not just the present one for want of a rate."""
        return self.pending == 0 or self.worker_items_per_second is not None


def advise(pending: int, rates: Sequence[float | None], drain_minutes: float) -> Advice:
    """Return the advice.

    Args:
        pending: Rows that wait, of any lane.
        rates: One entry for each live worker without a problem, in any order: episodes a second while busy, None before its first batch.
        drain_minutes: In how many minutes the backlog shall be gone; positive.
    """
    measured = [rate for rate in rates if rate is not None and rate >= _LEAST_RATE]
    rate = median(measured) if measured else None
    if pending == 0:
        return Advice(1, len(rates), pending, drain_minutes, rate, 0.0, "nothing is pending; one worker is enough")
    if rate is None:
        present = max(1, len(rates))
        reason = f"no worker has measured its rate yet; {_workers(present)} until one has"
        return Advice(present, len(rates), pending, drain_minutes, None, None, reason)
    needed = max(1, math.ceil(pending / (rate * 60 * drain_minutes)))
    reason = f"{_workers(needed)} at {rate:.1f} episodes/s each would embed {pending:,} pending in {drain_minutes:g} min"
    minutes = pending / (rate * len(rates) * 60)
    return Advice(needed, len(rates), pending, drain_minutes, rate, minutes, reason)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
