"""The times that a question speaks of, where they are clear: pure, in English and Spanish.

A preference and no filter: "What did Ann paint in May 2023?" asks first for what was said then, and the answer may stand elsewhere.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan enero",
            "february feb febrero",
            "march mar marzo",
            "april apr abril",
            "may mayo",
            "june jun junio",
            "july jul julio",
            "august aug agosto",
            "september sept sep septiembre setiembre",
            "october oct octubre",
            "november nov noviembre",
            "december dec diciembre",
        ),
        start=1,
    )
    for name in names.split()
}
_MONTH = r"(?P<month>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th|º)?\b"
_YEAR = r"(?P<year>(?:19|20)\d\d)\b"
_OF = r",?\s+(?:of\s+|de\s+|del\s+)?"

# The more a pattern says the earlier it stands: what it takes is not read again by a later one. Names of months are words of their own
# in both languages ("may", "march", "mar"), so one that stands alone counts only after a word that introduces a time.
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b{_YEAR}-(?P<month>\d\d)(?:-(?P<day>\d\d))?\b",
        rf"\b{_DAY}(?:\s+of|\s+de)?\s+{_MONTH}(?:{_OF}{_YEAR})?",
        rf"\b{_MONTH}\s+{_DAY}(?:,?\s+{_YEAR})?",
        rf"\b{_MONTH}{_OF}{_YEAR}",
        rf"\b(?:in|during|since|until|by|of|en|durante|desde|hasta|de|del)\s+{_MONTH}",
        rf"\b(?:in|during|since|until|by|of|year|en|durante|desde|hasta|de|del|año)\s+{_YEAR}",
    )
)
_LAST_OF_NAME = re.compile(rf"\b(?:last|this past|(?:el )?pasado(?: mes de)?)\s+{_MONTH}", re.IGNORECASE)

_TOLD_FOR_DAYS = 1
"""What happened on a day is told on the day after too."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A date of which some parts are known: "May" is any May, "2023" any day of that year."""

    year: int | None = None
    month: int | None = None
    day: int | None = None

    def holds(self, moment: datetime) -> bool:
        """Return whether a moment lies in it, or, of a whole date, right after it."""
        if self.year is not None and self.month is not None and self.day is not None:
            return 0 <= (moment.date() - date(self.year, self.month, self.day)).days <= _TOLD_FOR_DAYS
        parts = ((self.year, moment.year), (self.month, moment.month), (self.day, moment.day))
        return all(known is None or known == part for known, part in parts)


@dataclass(frozen=True, slots=True)
class Span:
    """From one day to another, both included."""

    first: date
    last: date

    def holds(self, moment: datetime) -> bool:
        """Return whether a moment lies in it."""
        return self.first <= moment.date() <= self.last


Period = Mention | Span


def _days_ago(first: int, last: int) -> Callable[[date], Span]:
    return lambda today: Span(today - timedelta(first), today - timedelta(last))


def _last_week(today: date) -> Span:
    monday = today - timedelta(today.weekday() + 7)
    return Span(monday, monday + timedelta(6))


def _last_month(today: date) -> Span:
    end = today.replace(day=1) - timedelta(1)
    return Span(end.replace(day=1), end)


def _last_year(today: date) -> Span:
    return Span(date(today.year - 1, 1, 1), date(today.year - 1, 12, 31))


_RELATIVE: tuple[tuple[re.Pattern[str], Callable[[date], Span]], ...] = tuple(
    (re.compile(rf"\b(?:{words})\b", re.IGNORECASE), span)
    for words, span in (
        ("today|hoy", _days_ago(0, 0)),
        ("yesterday|ayer", _days_ago(1, 1)),
        ("anteayer|the day before yesterday", _days_ago(2, 2)),
        ("last week|la semana pasada", _last_week),
        ("last month|el mes pasado", _last_month),
        ("last year|el año pasado", _last_year),
    )
)


def periods_in(query: str, now: datetime) -> list[Period]:
    """Return the times that a question speaks of, in no order; empty when none is clear.

    Args:
        query: In English or Spanish.
        now: What "yesterday" is counted from.
    """
    today = now.astimezone(UTC).date()
    found: list[Period] = [span(today) for words, span in _RELATIVE if words.search(query)]
    for match in _LAST_OF_NAME.finditer(query):
        month = _MONTHS[match["month"].lower()]
        found.append(Mention(today.year if month < today.month else today.year - 1, month))
        query = _without(query, match)
    for pattern in _DATES:
        for match in pattern.finditer(query):
            if (mention := _mention(match)) is not None:
                found.append(mention)
                query = _without(query, match)
    return found


def in_any(periods: Sequence[Period], moment: datetime) -> bool:
    """Return whether a moment lies in one of the periods."""
    return any(period.holds(moment.astimezone(UTC)) for period in periods)


def _mention(match: re.Match[str]) -> Mention | None:
    """Return what a match says, None when there is no such date."""
    said = match.groupdict()
    month = said.get("month")
    year, day = (int(said[part]) if said.get(part) else None for part in ("year", "day"))
    mention = Mention(year, None if month is None else int(month) if month.isdigit() else _MONTHS[month.lower()], day)
    try:
        date(mention.year or 2000, mention.month or 1, mention.day or 1)
    except ValueError:
        return None
    return mention


def _without(query: str, match: re.Match[str]) -> str:
    return query[: match.start()] + " " * len(match[0]) + query[match.end() :]
