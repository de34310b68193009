"""How the console writes what it knows: names, states, numbers with units, times in UTC with their age. Pure."""

from datetime import UTC, datetime

COMPONENTS = {
    "postgresql": "PostgreSQL",
    "redis": "Redis cache",
    "broker": "Message broker",
    "encoder": "Query encoder",
    "dispatcher": "Dispatcher",
    "worker": "Workers",
    "queue": "Queue",
    "accounting_identity": "Accounting identity",
}
"""What each component of the health report is called."""

TONES = {
    "healthy": "good",
    "degraded": "warn",
    "unhealthy": "bad",
    "searchable": "good",
    "done": "good",
    "pending": "wait",
    "processing": "wait",
    "superseded": "calm",
    "deleted": "calm",
    "dead": "bad",
    "stale": "warn",
    "altered": "bad",
    "missing": "bad",
    "active": "good",
    "expired": "calm",
    "revoked": "calm",
}
"""How a state is coloured; its word always stands beside it, and each tone has a shape of its own."""

HEADLINES = {
    "healthy": "Memory works",
    "degraded": "Memory works, with limits",
    "unhealthy": "Memory does not work",
}
"""What the whole health report comes to."""

_STEPS = ((86_400, "d"), (3600, "h"), (60, "min"))


def count(value: float) -> str:
    """Return a whole number with its thousands apart: 12,345."""
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Return a time span in its two largest units: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 4 d 3 h; an en dash for None."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    left = round(seconds)
    if left < 60:
        return f"{left} s"
    for place, (size, unit) in enumerate(_STEPS):
        if left >= size:
            smaller, name = (_STEPS[place + 1]) if place + 1 < len(_STEPS) else (1, "s")
            rest = left % size // smaller
            return f"{left // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{left} s"


def rate(per_second: float | None) -> str:
    """Return a rate in its own unit, an en dash for None: 3.2/s, 12/min."""
    if per_second is None:
        return "–"
    if per_second >= 1 or per_second == 0:
        return f"{per_second:,.0f}/s" if per_second >= 100 or per_second == 0 else f"{per_second:.1f}/s"
    return f"{per_second * 60:.1f}/min"


def moment(at: datetime) -> str:
    """Return a time in UTC to the second: 2026-11-29 01:52:10 UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def age(at: datetime, now: datetime) -> str:
    """Return how long ago a time was, or how far ahead it lies: 3 min ago, just now, in 2 d."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < 2:
        return "just now"
    # To the largest unit: who wants more has the time itself beside it.
    text = " ".join(duration(max(10, round(abs(seconds)))).split(" ")[:2]) if abs(seconds) >= 10 else f"{abs(seconds):.0f} s"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def shortened(text: str, most: int) -> str:
    """Return the text, or its beginning and an ellipsis when it is longer than `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
