"""What follows one request, or one task, through every log line: its id, its trace, its caller."""

import re
import secrets

from structlog.contextvars import bind_contextvars, clear_contextvars

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


def accept_request_id(offered: str | None) -> str:
    """Return the caller's request id when it is well formed, else a new one of 32 hexadecimal digits."""
    if offered is not None and _REQUEST_ID.match(offered):
        return offered
    return secrets.token_hex(16)


def start(request_id: str) -> None:
    """Begin a request's context; whatever an earlier request left in this thread is gone."""
    clear_contextvars()
    bind_contextvars(request_id=request_id)


def start_task(task_id: str) -> None:
    """Begin a task's context; whatever an earlier task left in this thread is gone."""
    clear_contextvars()
    bind_contextvars(task_id=task_id)


def clear() -> None:
    """End a request's or task's context: what this thread logs next belongs to none."""
    clear_contextvars()


def add(**values: str | list[str]) -> None:
    """Add values to every later log line of this request or task; never content, never a secret."""
    bind_contextvars(**values)
