"""The worker's consumer: Celery's own, but whatever is no sound message is discarded, and nothing of it reaches a log."""

from collections.abc import Callable
from typing import Any

import structlog
from celery.worker.consumer import Consumer as CelerysConsumer

_log = structlog.get_logger(__name__)

MALFORMED = (TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError)
"""What Celery raises at a message whose parts are not of the kinds that it trusts them to be."""


class Consumer(CelerysConsumer):  # type: ignore[misc]  # Celery has no types
    """Takes messages. A discarded one costs its rows, if it had any, no more than their lease.

    Celery looks into headers and body before a task's strategy can: what it does not expect there ends the worker, is delivered to the
    next one, and so on. And it logs the body of what it discards, in which a claim's token may stand.
    """

    class Blueprint(CelerysConsumer.Blueprint):  # type: ignore[misc]
        """Celery's steps but native delayed delivery, which declares 28 queues and exchanges wherever it sees a quorum queue.

        No message here carries a delay: a retry waits in PostgreSQL.
        """

        default_steps = [  # noqa: RUF012
            step for step in CelerysConsumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """Return what takes a message."""
        handle = super().create_task_handler(*args, **options)

        def take(message: Any) -> Any:
            try:
                return handle(message)
            except MALFORMED as error:
                return self._discard(message, error)

        return take

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Discard what is no message of Celery's."""
        self._discard(message, "no message of Celery's")

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """Discard a message that names a task that is not here."""
        self._discard(message, "no task of this service")

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """Discard a message that its task's strategy does not take."""
        self._discard(message, exc)

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """Discard a message whose body cannot be read."""
        self._discard(message, exc)

    def _discard(self, message: Any, reason: BaseException | str) -> None:
        why = reason if isinstance(reason, str) else type(reason).__name__
        _log.warning("message_discarded", reason=why, action="find out who else writes to the broker's queues")
        if not message.acknowledged:
            message.reject_log_error(_log, self.connection_errors)
