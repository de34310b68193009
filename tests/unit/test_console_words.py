"""What the console makes of numbers and times, and the curves of its chart: pure functions."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cache.depths import SPAN_SECONDS, Depth
from app.console import chart, words

NOW = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10.0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (80, "1 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
        (-1, "0.0 s"),
        (None, "–"),
    ],
)
def test_duration_reads_in_two_units_at_most(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "just now"), (7.4, "7 s ago"), (65, "1 min ago"), (7500, "2 h ago"), (-90_000, "in 1 d"), (-20, "in 20 s")],
)
def test_age_reads_in_one_unit(seconds: float, text: str) -> None:
    assert words.age(NOW - timedelta(seconds=seconds), NOW) == text


def test_moment_is_in_utc_wherever_it_came_from() -> None:
    assert words.moment(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-11-29 12:00:00 UTC"


@pytest.mark.parametrize(("rate", "text"), [(None, "–"), (0, "0/s"), (123.4, "123/s"), (3.21, "3.2/s"), (0.1, "6.0/min")])
def test_rate_has_a_unit_that_fits(rate: float | None, text: str) -> None:
    assert words.rate(rate) == text


def test_long_text_is_cut_visibly() -> None:
    assert words.shortened("abc", 3) == "abc"
    assert words.shortened("abcd", 3) == "ab…"


def samples(*values: tuple[float, int, int]) -> list[Depth]:
    return [Depth(at, pending, 0, done, 0) for at, pending, done in values]


def test_curve_breaks_where_nothing_was_sampled() -> None:
    drawn = chart.depth_chart(samples((1000, 5, 0), (1010, 10, 0), (1500, 3, 0), (1510, 0, 0), (1600, 1, 0)), 1800)
    assert len(drawn.lines) == len(drawn.areas) == 2
    assert len(drawn.dots) == 1
    assert (drawn.top, drawn.last, drawn.most) == (10, 1, 10)


def test_rate_is_what_was_finished_between_two_samples() -> None:
    drawn = chart.rate_chart(samples((1000, 50, 0), (1010, 30, 20), (1020, 40, 10), (1030, 0, 50)), 1030)
    assert drawn.last == 4.0
    assert drawn.most == 4.0
    assert chart.rate_chart(samples((1000, 0, 0), (2000, 0, 999)), 2000).last is None, "over a gap nobody knows when"


def test_nothing_sampled_is_no_curve() -> None:
    drawn = chart.depth_chart([], 1000)
    assert (drawn.lines, drawn.areas, drawn.dots, drawn.last, drawn.most) == ([], [], [], None, None)


@given(st.lists(st.tuples(st.floats(0, 4000), st.integers(0, 10**9), st.integers(0, 10**9)), max_size=40), st.floats(0, 4000))
def test_curve_stays_in_its_box(values: list[tuple[float, int, int]], now: float) -> None:
    taken = samples(*sorted(values))
    for drawn in (chart.depth_chart(taken, now), chart.rate_chart(taken, now)):
        assert drawn.top >= (drawn.most or 0)
        for path in [*drawn.lines, *drawn.areas]:
            for point in path.strip("MZ").split("L"):
                x, y = map(float, point.split(" "))
                assert 0 <= x <= chart.WIDTH
                assert 0 <= y <= chart.HEIGHT
    assert SPAN_SECONDS == 1800
