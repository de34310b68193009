"""How fast a worker embeds while it is busy."""

import math
from collections.abc import Iterable

LEAST_CHARS = 64
"""What a text counts as at least: a short one costs its row and its vector all the same. The same number stands in queue_lanes()."""


class Rate:
    """Episodes and characters a second while busy, over about the last minute of work."""

    _MEMORY_SECONDS = 60.0

    def __init__(self) -> None:
        self._items = 0.0
        self._chars = 0.0
        self._seconds = 0.0

    def add(self, lengths: Iterable[int], seconds: float) -> None:
        """Count a batch: the characters of each of its texts, and how long it took in all."""
        weights = [max(length, LEAST_CHARS) for length in lengths]
        kept = math.exp(-seconds / self._MEMORY_SECONDS)
        self._items = self._items * kept + len(weights)
        self._chars = self._chars * kept + sum(weights)
        self._seconds = self._seconds * kept + seconds

    @property
    def items_per_second(self) -> float | None:
        """Episodes a second; None before the first batch."""
        return self._items / self._seconds if self._seconds else None

    @property
    def chars_per_second(self) -> float | None:
        """Characters a second; None before the first batch."""
        return self._chars / self._seconds if self._seconds else None
