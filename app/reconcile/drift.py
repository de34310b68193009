"""What is wrong with one working memory in Redis, decided from both sides: pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.cache.digests import TOLERANCE_MS, Held


class Drift(StrEnum):
    """One way in which two stores disagree."""

    MISSING = "missing"
    STALE = "stale"
    UNHASHED = "unhashed"
    WRONG_TTL = "wrong_ttl"
    ORPHAN = "orphan"
    TORN = "torn"
    ALTERED = "altered"


@dataclass(frozen=True, slots=True)
class Expected:
    """What PostgreSQL says of a context: the SHA-1 of what Redis should hold, None when a change by plain SQL voided it, and its end."""

    agent_id: str
    context_id: str
    sha1: bytes | None
    expires_at: datetime


def judge(expected: Expected, held: Held, now: datetime) -> Drift | None:
    """Return what is wrong, or None when both sides agree.

    Args:
        expected: The row.
        held: The key.
        now: When Redis was asked, aware UTC.
    """
    if expected.sha1 is None:
        return Drift.UNHASHED
    if held.sha1 is None:
        return Drift.STALE if held.is_other_type else Drift.MISSING
    if held.sha1 != expected.sha1:
        return Drift.STALE
    left_ms = (expected.expires_at - now).total_seconds() * 1000
    if held.left_ms < 0 or abs(held.left_ms - left_ms) > TOLERANCE_MS:
        return Drift.WRONG_TTL
    return None
