"""How many workers a backlog needs: exact where rates are known, the present number where none is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.embedding.rate import LEAST_CHARS, Rate
from app.queue.advice import Backlog, advise

RATES = st.lists(st.one_of(st.none(), st.floats(0, 1e4)), max_size=20)
MINUTES = st.floats(0.01, 1e4)


@pytest.mark.parametrize(
    ("chars", "rates", "minutes", "advised"),
    [
        (0, [], 5.0, 1),
        (0, [10.0, 10.0, 10.0], 5.0, 1),
        (1, [10.0], 5.0, 1),
        (3_000, [10.0], 5.0, 1),
        (3_001, [10.0], 5.0, 2),
        (12_000, [10.0, None], 5.0, 4),
        (12_000, [5.0, 10.0, 1000.0], 5.0, 4),
        (12_000, [10.0], 1.0, 20),
        (12_000, [None, None, None], 5.0, 3),
        (12_000, [0.0, None], 5.0, 2),
        (12_000, [0.9, None], 5.0, 2),
        (12_000, [], 5.0, 1),
    ],
)
def test_number_follows_from_backlog_rate_and_time(chars: int, rates: list[float | None], minutes: float, advised: int) -> None:
    assert advise(Backlog(chars and 7, chars), rates, minutes).workers_advised == advised


@given(chars=st.integers(1, 10**12), rates=RATES, minutes=MINUTES)
def test_advised_workers_drain_in_time_and_one_fewer_would_not(chars: int, rates: list[float | None], minutes: float) -> None:
    advice = advise(Backlog(1, chars), rates, minutes)
    assert advice.workers_advised >= 1
    assert advice.workers_at_work == len(rates)
    rate = advice.worker_chars_per_second
    if rate is None:
        assert not advice.is_measured
        assert advice.workers_advised == max(1, len(rates))
        assert "no worker has measured" in advice.reason
        assert advice.minutes_to_drain is None
        return
    each = rate * 60 * minutes
    assert advice.workers_advised == 1 or (advice.workers_advised - 1) * each < chars * (1 + 1e-9)
    assert advice.workers_advised * each >= chars * (1 - 1e-9)
    assert advice.minutes_to_drain is not None
    assert math.isclose(advice.minutes_to_drain * len(rates) * rate * 60, chars, rel_tol=1e-6)


@given(rates=RATES, minutes=MINUTES)
def test_empty_queue_needs_one_worker_whatever_the_rates(rates: list[float | None], minutes: float) -> None:
    advice = advise(Backlog(0, 0), rates, minutes)
    assert (advice.workers_advised, advice.minutes_to_drain, advice.is_measured) == (1, 0.0, True)


def test_reason_says_what_the_number_follows_from() -> None:
    assert advise(Backlog(90, 1_200_000), [1000.0], 5.0).reason == (
        "4 workers at 1,000 characters/s each would embed what is due, 90 rows of 1,200,000 characters, in 5 min"
    )
    assert advise(Backlog(7, 700), [None, None], 5.0).reason == "no worker has measured its rate yet; 2 workers until one has"


def test_one_very_long_text_does_not_make_short_ones_look_slow() -> None:
    """A worker that took 20 s over 200,000 characters, and 1,000 sentences that wait."""
    rate = Rate()
    rate.add([200_000], 20.0)
    assert rate.items_per_second == pytest.approx(0.05)
    assert advise(Backlog(1_000, 100_000), [rate.chars_per_second], 5.0).workers_advised == 1


def test_rate_counts_a_short_text_as_more_than_its_characters() -> None:
    rate = Rate()
    assert (rate.items_per_second, rate.chars_per_second) == (None, None)
    rate.add([1, 2, 3, 1000], 2.0)
    assert rate.items_per_second == pytest.approx(2.0)
    assert rate.chars_per_second == pytest.approx((3 * LEAST_CHARS + 1000) / 2)


def test_rate_forgets_what_was_long_ago() -> None:
    rate = Rate()
    rate.add([100], 100.0)
    for _ in range(50):
        rate.add([1000], 10.0)
    assert rate.chars_per_second == pytest.approx(100.0, rel=0.01)
