"""How many workers a backlog needs: exact where rates are known, the present number where none is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.queue.advice import advise

RATES = st.lists(st.one_of(st.none(), st.floats(0, 1e4)), max_size=20)
MINUTES = st.floats(0.01, 1e4)


@pytest.mark.parametrize(
    ("pending", "rates", "minutes", "advised"),
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
        (12_000, [], 5.0, 1),
    ],
)
def test_number_follows_from_backlog_rate_and_time(pending: int, rates: list[float | None], minutes: float, advised: int) -> None:
    assert advise(pending, rates, minutes).workers_advised == advised


@given(pending=st.integers(1, 10**9), rates=RATES, minutes=MINUTES)
def test_advised_workers_drain_in_time_and_one_fewer_would_not(pending: int, rates: list[float | None], minutes: float) -> None:
    advice = advise(pending, rates, minutes)
    assert advice.workers_advised >= 1
    assert advice.workers_at_work == len(rates)
    rate = advice.worker_items_per_second
    if rate is None:
        assert not advice.is_measured
        assert advice.workers_advised == max(1, len(rates))
        assert "no worker has measured" in advice.reason
        assert advice.minutes_to_drain is None
        return
    each = rate * 60 * minutes
    assert advice.workers_advised == 1 or (advice.workers_advised - 1) * each < pending * (1 + 1e-9)
    assert advice.workers_advised * each >= pending * (1 - 1e-9)
    assert advice.minutes_to_drain is not None
    assert math.isclose(advice.minutes_to_drain * len(rates) * rate * 60, pending, rel_tol=1e-6)


@given(rates=RATES, minutes=MINUTES)
def test_empty_queue_needs_one_worker_whatever_the_rates(rates: list[float | None], minutes: float) -> None:
    advice = advise(0, rates, minutes)
    assert (advice.workers_advised, advice.minutes_to_drain, advice.is_measured) == (1, 0.0, True)


def test_reason_says_what_the_number_follows_from() -> None:
    assert advise(12_000, [10.0], 5.0).reason == "4 workers at 10.0 episodes/s each would embed 12,000 pending in 5 min"
    assert advise(7, [None, None], 5.0).reason == "no worker has measured its rate yet; 2 workers until one has"
