"""How a worker takes a message: a malformed one is discarded with a log line, and never ends the worker that reads it."""

from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.strategy import default

from tasks.consumer import MALFORMED


def discard_malformed(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Return Celery's own strategy behind a look at the message.

    Celery trusts what names a known task: a body or header of another shape raises in the consumer, ends the worker, and is delivered to
    the next one, without end. A discarded message costs its rows, if it had any, no more than their lease.
    """
    handle = default(task, app, consumer, **options)

    def take(message: Any, body: Any, *rest: Any, **more: Any) -> Any:
        try:
            _require_shape(message, body)
            return handle(message, body, *rest, **more)
        except MALFORMED as error:
            raise InvalidTaskError(f"malformed: {type(error).__name__}") from error

    return take


def _require_shape(message: Any, body: Any) -> None:
    """Raise unless this is a message of Celery's protocol 2 without time limits, the only one that is sent here.

    A limit in a message would switch on Celery's own, at which its parent can hang for ever (see tasks/time_limit.py).

    Raises:
        ValueError: It is not; or what decoding raises.
    """
    shape = (None if body is not None else message.payload, message.headers.get("id"), message.headers.get("timelimit"))
    match shape:
        case ([list(), dict(), dict() | None], str(), None | [None, None]):
            return
        case _:
            raise ValueError("not a message of protocol 2")
