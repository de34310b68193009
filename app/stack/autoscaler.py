"""When to run more or fewer workers: the decision alone, without clock, database or processes."""


class Autoscaler:
    """Follows advice with hysteresis, so that a short burst or a short lull changes nothing.

    More workers are wanted once more have been advised for `up_seconds` without a break, and then as many as are advised.
    Fewer are wanted once fewer have been advised for `down_seconds` without a break, one at a time, each after a wait of its own.

    Args:
        initial: Workers at the start; brought into the bounds.
        low: Fewest workers, at least 1.
        high: Most workers, at least `low`.
        up_seconds: See above.
        down_seconds: See above.
    """

    def __init__(self, initial: int, low: int, high: int, up_seconds: float, down_seconds: float) -> None:
        self._low = low
        self._high = high
        self._up_seconds = up_seconds
        self._down_seconds = down_seconds
        self._more_since: float | None = None
        self._fewer_since: float | None = None
        self.wanted = self._within(initial)
        """How many workers should run now."""

    def consult(self, now: float, advised: int | None) -> bool:
        """Take note of the advice and return whether `wanted` has changed.

        Args:
            now: Seconds of a clock that never goes back; at least those of the call before.
            advised: Workers that the backlog needs; None when that is not known, which breaks every wait and changes nothing.
        """
        target = self.wanted if advised is None else self._within(advised)
        self._more_since = _since(self._more_since, now, holds=target > self.wanted)
        self._fewer_since = _since(self._fewer_since, now, holds=target < self.wanted)
        if self._more_since is not None and now - self._more_since >= self._up_seconds:
            return self._change(target)
        if self._fewer_since is not None and now - self._fewer_since >= self._down_seconds:
            return self._change(self.wanted - 1)
        return False

    def _change(self, wanted: int) -> bool:
        self.wanted = wanted
        self._more_since = self._fewer_since = None
        return True

    def _within(self, workers: int) -> int:
        return max(self._low, min(self._high, workers))


def _since(since: float | None, now: float, *, holds: bool) -> float | None:
    """Return since when a condition holds without a break, None when it does not hold now."""
    return (now if since is None else since) if holds else None
