"""The geometry of the queue's chart: lines and ticks in an SVG's own units, from samples over time. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.cache.depths import INTERVAL_SECONDS, SPAN_SECONDS, Depth

WIDTH, HEIGHT = 600, 120
_GAP_SECONDS = 6 * INTERVAL_SECONDS
"""Samples further apart are not joined: what was between them is not known."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One quantity over the last half hour.

    Attributes:
        lines: SVG paths, one for each stretch without a gap, in a box of WIDTH by HEIGHT.
        areas: The same stretches down to zero.
        dots: Places of samples that stand alone.
        top: The value at the upper edge.
        last: The latest value; None when there is none.
        most: The greatest value; None when there is none.
    """

    lines: list[str]
    areas: list[str]
    dots: list[tuple[float, float]]
    top: float
    last: float | None
    most: float | None


def depth_chart(samples: Sequence[Depth], now: float) -> Chart:
    """Return how many rows were unfinished.

    Args:
        samples: The oldest first.
        now: The right edge, seconds since 1970.
    """
    return _chart([(sample.at, float(sample.pending + sample.processing)) for sample in samples], now, least_top=10)


def rate_chart(samples: Sequence[Depth], now: float) -> Chart:
    """Return how many rows were finished in a second, by what was done at each sample and at the one before.

    Rows that go back to work (an edit, a replay, another model) hide as many that were finished meanwhile; it is never shown below zero.
    """
    rates = [
        (after.at, max(0.0, (after.done + after.dead - before.done - before.dead) / (after.at - before.at)))
        for before, after in pairwise(samples)
        if 1 <= after.at - before.at <= _GAP_SECONDS
    ]
    return _chart(rates, now, least_top=1)


def _chart(points: Sequence[tuple[float, float]], now: float, least_top: float) -> Chart:
    most = max((value for _, value in points), default=None)
    top = _round_up(max(least_top, most or 0.0))
    stretches: list[list[tuple[float, float]]] = []
    for place, (at, value) in enumerate(points):
        if place == 0 or at - points[place - 1][0] > _GAP_SECONDS:
            stretches.append([])
        stretches[-1].append((_x(at, now), round(HEIGHT * (1 - value / top), 1)))
    joined = [stretch for stretch in stretches if len(stretch) > 1]
    lines = ["M" + "L".join(f"{x} {y}" for x, y in stretch) for stretch in joined]
    areas = [f"{line}L{stretch[-1][0]} {HEIGHT}L{stretch[0][0]} {HEIGHT}Z" for line, stretch in zip(lines, joined, strict=True)]
    dots = [stretch[0] for stretch in stretches if len(stretch) == 1]
    return Chart(lines, areas, dots, top, points[-1][1] if points else None, most)


def _x(at: float, now: float) -> float:
    return round(WIDTH * min(1.0, max(0.0, 1 - (now - at) / SPAN_SECONDS)), 1)


def _round_up(value: float) -> float:
    """Return the least of 1, 2, 5, 10, 20, 50 and so on that is not below the value, so that the edge reads well."""
    size = 1.0
    while True:
        for step in (1, 2, 5):
            if step * size >= value:
                return step * size
        size *= 10
