"""Counts what comes of reads and writes for the metric cache_requests_total."""

from typing import Any

from app.observability.metrics import observe_cache


def observe_read(answer: tuple[Any, Any] | None) -> None:
    """Count a read by its (value, generation), where a value of None is a miss; None says that Redis is not to be had."""
    if answer is None:
        observe_cache("unavailable")
    else:
        observe_cache("miss" if answer[0] is None else "hit")


def observe_write(done: bool | None) -> None:
    """Count a write: whether it was done; None says that Redis is not to be had."""
    observe_cache("written" if done else "failed")
