"""How a worker takes a message: a malformed one is discarded with a log line, and never ends the worker that reads it."""

from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.strategy import default

from tasks.consumer import MALFORMED

_TEXTS = ("lang", "task", "id", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin")
"""Headers that a message here has; all but task and id may be absent or null."""

_UNUSED = ("shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "replaced_task_nesting", "stamped_headers", "stamps")
"""Headers of Celery's that no message here makes use of: they are there, and empty."""


def discard_malformed(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Return Celery's own strategy behind a look at the message.

    Celery trusts what names a known task: a body or header of another shape raises in the consumer, ends the worker, and is delivered to
    the next one, without end; or it raises when a child is free for it, which then is never given work again. A discarded message costs
    its rows, if it had any, no more than their lease.
    """
    handle = default(task, app, consumer, **options)

    def take(message: Any, body: Any, *rest: Any, **more: Any) -> Any:
        try:
            _require_sound_body(message, body)
            message.headers = _sound_headers(message.headers)
            return handle(message, body, *rest, **more)
        except MALFORMED as error:
            raise InvalidTaskError(f"malformed: {type(error).__name__}") from error

    return take


def _require_sound_body(message: Any, body: Any) -> None:
    """Raise unless this is a body of Celery's protocol 2 without callbacks, the only one that is sent here.

    Raises:
        ValueError: It is not; or what decoding raises.
    """
    match None if body is not None else message.payload:
        case [list(), dict(), None]:
            return
        case [list(), dict(), dict() as embedded] if not any(embedded.values()):
            return
        case _:
            raise ValueError("not a body of protocol 2")


def _sound_headers(headers: dict[str, Any]) -> dict[str, Any]:
    """Return those headers that a message here has; what Celery does not know is left out.

    A time limit would switch on Celery's own, at which its parent can hang for ever (see tasks/time_limit.py).

    Raises:
        ValueError: One is of another kind than it should be, or makes use of what is not used here.
    """
    if any(headers.get(name) for name in _UNUSED if headers.get(name) != [None, None]):
        raise ValueError("a header that is not used here")
    texts = {name: headers.get(name) for name in _TEXTS}
    if not all(isinstance(text, str | None) for text in texts.values()) or texts["id"] is None or texts["task"] is None:
        raise ValueError("a header that is no text")
    return {**texts, "ignore_result": bool(headers.get("ignore_result"))}
