"""How fast a worker embeds while it is busy."""

import math


class Rate:
    """Episodes a second while busy, over about the last minute of work."""

    _MEMORY_SECONDS = 60.0

    def __init__(self) -> None:
        self._items = 0.0
        self._seconds = 0.0

    def add(self, items: int, seconds: float) -> None:
        """Count a batch: its rows and how long it took."""
        kept = math.exp(-seconds / self._MEMORY_SECONDS)
        self._items = self._items * kept + items
        self._seconds = self._seconds * kept + seconds

    @property
    def items_per_second(self) -> float | None:
        """The rate; None before the first batch."""
        return self._items / self._seconds if self._seconds else None
