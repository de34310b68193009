"""What a run measured: figures with unit, target and verdict, and the arithmetic behind them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: What was measured, unique within its part of the benchmark.
        value: The median over the rounds, or the percentile that the name says.
        unit: For example "episodes/s", "ms", "ratio".
        target: What it should reach; None for a figure that is only for information.
        better: Whether a larger or a smaller value is the better one.
        samples: Every round's value in the order of the rounds; empty for a percentile.
        note: What a reader must know to judge it.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    better: Literal["larger", "smaller"] = "larger"
    samples: tuple[float, ...] = ()
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None when there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "larger" else self.value < self.target


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed (nearest rank).

    Args:
        values: At least one, in any order.
        share: 0 < share <= 1, for example 0.99.

    Raises:
        ValueError: There are no values, or the share is out of range.
    """
    if not values or not 0 < share <= 1:
        raise ValueError(f"no percentile {share} of {len(values)} values")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def over_rounds(name: str, samples: Sequence[float], unit: str, target: float | None = None, note: str = "") -> Figure:
    """Return the figure of several rounds: their median, of which more is better."""
    return Figure(name, statistics.median(samples), unit, target, "larger", tuple(samples), note)


def ratios(name: str, ours: Sequence[float], theirs: Sequence[float], target: float | None = None, note: str = "") -> Figure:
    """Return the figure of our rate over another's, round by round, so that a slow minute of the machine counts for both."""
    return over_rounds(name, [mine / other for mine, other in zip(ours, theirs, strict=True)], "ratio", target, note)


def times(name: str, seconds: Sequence[float], targets: tuple[float | None, float | None] = (None, None)) -> list[Figure]:
    """Return the 50th and the 99th percentile of durations, in milliseconds.

    Args:
        name: What took so long.
        seconds: Each duration, at least one.
        targets: Milliseconds that the two percentiles should stay below.
    """
    note = f"{len(seconds)} samples"
    return [
        Figure(f"{name}, p{round(share * 100)}", percentile(seconds, share) * 1000, "ms", target, "smaller", (), note)
        for share, target in ((0.5, targets[0]), (0.99, targets[1]))
    ]
