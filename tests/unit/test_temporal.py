"""The times that questions speak of, in English and Spanish; and the words that only look like times."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.temporal import Mention, Period, Span, in_any, periods_in

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "periods"),
    [
        ("What did Ann paint in May 2023?", [Mention(2023, 5)]),
        ("what did she paint in may, 2023", [Mention(2023, 5)]),
        ("Where did Bo travel to in July?", [Mention(month=7)]),
        ("on 1 May, 2022", [Mention(2022, 5, 1)]),
        ("on October 13, 2023", [Mention(2023, 10, 13)]),
        ("the 3rd of March", [Mention(month=3, day=3)]),
        ("on Sept. 4 2021", [Mention(2021, 9, 4)]),
        ("the release of 2024-02-29", [Mention(2024, 2, 29)]),
        ("reports from 2024-02", [Mention(2024, 2)]),
        ("How often was she there in 2023?", [Mention(2023)]),
        ("last May", [Mention(2026, 5)]),
        ("last December", [Mention(2025, 12)]),
        ("last November", [Mention(2025, 11)]),
        ("in June 2022 and in July 2022", [Mention(2022, 6), Mention(2022, 7)]),
        ("what broke yesterday?", [Span(date(2026, 11, 25), date(2026, 11, 25))]),
        ("what did we do last week", [Span(date(2026, 11, 16), date(2026, 11, 22))]),
        ("what did we do last month", [Span(date(2026, 10, 1), date(2026, 10, 31))]),
        ("since last year", [Span(date(2025, 1, 1), date(2025, 12, 31))]),
        ("¿Qué pasó el 3 de mayo de 2023?", [Mention(2023, 5, 3)]),
        ("¿Qué pintó en mayo de 2023?", [Mention(2023, 5)]),
        ("¿Qué pintó en enero?", [Mention(month=1)]),
        ("¿Qué decidimos en 2023?", [Mention(2023)]),
        ("¿Qué se rompió ayer?", [Span(date(2026, 11, 25), date(2026, 11, 25))]),
        ("¿Y la semana pasada?", [Span(date(2026, 11, 16), date(2026, 11, 22))]),
        ("¿Qué hicimos el pasado mayo?", [Mention(2026, 5)]),
        ("el año pasado", [Span(date(2025, 1, 1), date(2025, 12, 31))]),
    ],
)
def test_time_is_understood(query: str, periods: list[Period]) -> None:
    assert periods_in(query, NOW) == periods


@pytest.mark.parametrize(
    "query",
    [
        "",
        "May I ask who that was?",
        "who may march with Ann?",
        "we march on",
        "April is her sister",
        "the port is 2023",
        "room 2019",
        "February 30",
        "2024-13-01",
        "on 45 May",
        "¿dónde está el mar?",
        "augustus",
        "when did it happen?",
    ],
)
def test_what_is_no_clear_time_is_none(query: str) -> None:
    assert periods_in(query, NOW) == []


def test_day_is_told_of_on_the_day_after_too() -> None:
    day = datetime(2023, 5, 8, tzinfo=UTC)
    told = [in_any([Mention(2023, 5, 8)], day + timedelta(hours=hours)) for hours in (-1, 0, 23, 24, 47, 48)]
    assert told == [False, True, True, True, True, False]


def test_what_is_not_said_is_left_open() -> None:
    assert in_any([Mention(month=5)], datetime(1999, 5, 1, tzinfo=UTC))
    assert in_any([Mention(2023)], datetime(2023, 12, 31, 23, 59, tzinfo=UTC))
    assert not in_any([Mention(2023, 5)], datetime(2022, 5, 1, tzinfo=UTC))
    assert not in_any([], NOW)


@given(st.text(max_size=200), st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 31), timezones=st.just(UTC)))
def test_no_text_breaks_it(query: str, now: datetime) -> None:
    periods_in(query, now)
