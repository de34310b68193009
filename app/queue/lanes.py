"""The four priority lanes, what each may always hold, and from where on a dispatcher looks for work in them."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.queue.models import ClaimedRow


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane. `reserve` is the share of the window that its rows may hold however many more urgent ones wait."""

    number: int
    name: str
    reserve: float


LANES = (Lane(0, "critical", 1.0), Lane(1, "high", 0.25), Lane(2, "normal", 0.125), Lane(3, "low", 0.0625))
"""Most urgent first, numbered as memory_system.lane() numbers them. Beyond the reserves, the more urgent lane takes what is free:
a critical row never waits for room, and a low one moves on though critical ones keep coming."""

Position = tuple[datetime, UUID]
"""due_at and target_id of a row, the order within a lane."""

_LONGEST_SECONDS = 1.0
_SHARE_OF_TIME = 4.0


class LowWater:
    """Where each lane's unclaimed rows begin.

    A snapshot that somebody holds keeps the index entries of claimed rows in place, and a claim that began at the start of the
    index would read them all again each time (10 ms instead of 2 after 150,000 rows). So a claim begins after the last row
    claimed; and because a transaction that began earlier may commit a row before that place later, a claim from the start
    follows within a second, sooner when the last claim found nothing, and never for more than a fifth of the time.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._positions: dict[int, Position] = {}
        self._oldest_claim: datetime | None = None
        self._begun = 0.0
        self._next_from_start = 0.0
        self._cost = 0.0
        self._ended = 0.0

    def begin(self) -> bool:
        """Return whether the claim that begins now must look from the start."""
        self._begun = self._clock()
        return self._begun >= self._next_from_start

    def positions(self) -> dict[int, Position]:
        """Return, by lane, the last row claimed; a lane that nothing was claimed from is absent."""
        return dict(self._positions)

    @property
    def oldest_claim(self) -> datetime | None:
        """No row in flight was claimed before this; None when it is not known."""
        return self._oldest_claim

    def end(self, rows: Iterable[ClaimedRow], *, from_start: bool, oldest_claim: datetime | None) -> None:
        """Take note of what a claim found."""
        last: dict[int, Position] = {}
        for row in rows:
            last[row.priority] = max(last.get(row.priority, (row.due_at, row.target_id)), (row.due_at, row.target_id))
        self._positions.update(last)
        if from_start:
            now = self._clock()
            self._cost, self._ended, self._oldest_claim = now - self._begun, now, oldest_claim
        wait = self._cost * _SHARE_OF_TIME
        self._next_from_start = self._ended + (max(_LONGEST_SECONDS, wait) if last else wait)
