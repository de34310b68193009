"""How many workers would drain the backlog in a given time: arithmetic on what the workers themselves measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_LEAST_RATE = 1.0
"""Characters a second. A worker that did less was not held up by the work, and says nothing about what another one would do."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Rows that a worker could take now or has taken, and the characters of their texts, each counted as 64 at least."""

    rows: int
    chars: int


@dataclass(frozen=True, slots=True)
class Advice:
    """How many workers the backlog needs, and what that follows from.

    Attributes:
        workers_advised: How many would drain the backlog in `drain_minutes`; at least 1, so that an idle queue keeps one model loaded.
        workers_at_work: Live workers without a problem; one with a problem takes no work and does not count.
        due: Rows that could be embedded now, or are being so; those that wait for another attempt do not count.
        due_chars: The characters of their texts, each counted as 64 at least.
        drain_minutes: The time that was asked for.
        worker_chars_per_second: Median rate of the workers at work, in characters a second while busy; None when none has measured
            one yet, and the advice is then the present number.
        minutes_to_drain: How long the workers at work need for what is due; None when that cannot be said.
        reason: The same in one sentence.
    """

    workers_advised: int
    workers_at_work: int
    due: int
    due_chars: int
    drain_minutes: float
    worker_chars_per_second: float | None
    minutes_to_drain: float | None
    reason: str

    @property
    def is_measured(self) -> bool:
        """Whether the number follows from the backlog, and is not just the present one for want of a rate."""
        return self.due == 0 or self.worker_chars_per_second is not None


def advise(backlog: Backlog, rates: Sequence[float | None], drain_minutes: float) -> Advice:
    """Return the advice.

    Args:
        backlog: Of any lane.
        rates: One entry for each live worker without a problem, in any order: characters a second while busy, None before its first batch.
        drain_minutes: In how many minutes the backlog shall be gone; positive.
    """
    measured = [rate for rate in rates if rate is not None and rate >= _LEAST_RATE]
    rate = median(measured) if measured else None

    def advice(workers: int, minutes: float | None, reason: str) -> Advice:
        return Advice(workers, len(rates), backlog.rows, backlog.chars, drain_minutes, rate, minutes, reason)

    if backlog.rows == 0:
        return advice(1, 0.0, "nothing is due; one worker is enough")
    if rate is None:
        present = max(1, len(rates))
        return advice(present, None, f"no worker has measured its rate yet; {_workers(present)} until one has")
    needed = max(1, math.ceil(backlog.chars / (rate * 60 * drain_minutes)))
    reason = (
        f"{_workers(needed)} at {rate:,.0f} characters/s each would embed what is due, {backlog.rows:,} rows of {backlog.chars:,} "
        f"characters, in {drain_minutes:g} min"
    )
    return advice(needed, backlog.chars / (rate * len(rates) * 60), reason)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count:,} workers"
