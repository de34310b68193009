"""kombu's Redis transport without two ways in which it ends or deafens a worker: what is no message, and what cannot be acknowledged."""

from collections.abc import Callable
from typing import Any

import structlog
from kombu.transport import redis
from redis.exceptions import DataError

_log = structlog.get_logger(__name__)

# DataError: a part of the message that kombu writes back to Redis is of no kind that Redis takes.
_NO_MESSAGE = (TypeError, ValueError, LookupError, AttributeError, RecursionError, DataError)

Receive = Callable[[Any], Any]


class QoS(redis.QoS):
    """Counts the messages that a worker holds. kombu's goes on counting one whose acknowledgement was lost on its way."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message; it counts no longer, also if Redis could not be told.

        Otherwise a worker that takes one message at a time would never take another, until its connection breaks. What Redis
        was not told of comes back after the visibility timeout, and its token is spent.
        """
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        except BaseException:
            self._quick_ack(delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message up, or back to its queue; it counts no longer, also if Redis could not be told."""
        try:
            super().reject(delivery_tag, requeue)  # type: ignore[no-untyped-call]
        except BaseException:
            self._quick_ack(delivery_tag)
            raise

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back that nobody acknowledged in time; what stands there and is none is removed.

        A worker looks for such messages when it begins: otherwise each new one would end at the same element.
        """
        try:
            super().restore_by_tag(tag, client, leftmost)  # type: ignore[no-untyped-call]
        except _NO_MESSAGE as error:
            self._remove_from_indices(tag).execute()  # type: ignore[no-untyped-call]
            _report(error)


class Channel(redis.Channel):
    """kombu's channel, which trusts that everything in its lists and on its broadcasts was put there by kombu."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> bool:
        """Hand on the element that has come, and return whether there was one.

        By then it has left the list, so what cannot be read is gone; the reply has been read whole, so the connection is sound.
        """
        try:
            return bool(super()._brpop_read(**options))  # type: ignore[no-untyped-call]
        except _NO_MESSAGE as error:
            _report(error)
            return True

    def _receive_one(self, client: Any) -> Any:
        """Hand on a broadcast that has come (remote control, events), and return whether there was one."""
        try:
            return super()._receive_one(client)  # type: ignore[no-untyped-call]
        except _NO_MESSAGE as error:
            _report(error)
            return True

    def basic_consume(self, queue: str, no_ack: bool, callback: Receive, *args: Any, **options: Any) -> Any:
        """Consume a queue; a message that can be read but not understood is discarded too."""

        def receive(message: Any) -> Any:
            try:
                return callback(message)
            except _NO_MESSAGE as error:
                # It counts as being worked on by now: unless it is given up, a worker that takes one at a time takes no other.
                if not no_ack and not message.acknowledged:
                    message.reject()
                return _report(error)

        return super().basic_consume(queue, no_ack, receive, *args, **options)  # type: ignore[no-untyped-call]


def _report(error: Exception) -> None:
    _log.warning("message_discarded", error=type(error).__name__, action="find out who else writes to the broker")


class Transport(redis.Transport):
    """kombu's Redis transport with that channel."""

    Channel = Channel
