"""kombu's Redis transport, which trusts that nobody else writes to Redis and that every answer arrives, without the harm of either.

What is no message is discarded, a key of another type in the place of one of kombu's is removed, and a worker that could not tell
Redis of a message's end takes the next one. Nothing is lost by it: PostgreSQL holds the work.
"""

from collections.abc import Callable
from functools import wraps
from itertools import product
from typing import Any

import structlog
from kombu.transport import redis
from redis.exceptions import DataError, ResponseError

from tasks.names import CONSUMED_QUEUES

_log = structlog.get_logger(__name__)

# DataError: a part of the message that kombu writes back to Redis is of no kind that Redis takes.
_NO_MESSAGE = (TypeError, ValueError, LookupError, AttributeError, RecursionError, DataError)

_WITHOUT_END = -1
"""What Redis says of the time that a key has left which has no end."""

Receive = Callable[[Any], Any]


def _mended(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of a channel that removes keys of a foreign type and tries once more, where Redis refuses for their sake."""

    @wraps(method)
    def call(channel: "Channel", *args: Any, **options: Any) -> Any:
        try:
            return method(channel, *args, **options)
        except ResponseError as error:
            channel.mend(error)
            return method(channel, *args, **options)

    return call


class QoS(redis.QoS):
    """Counts the messages that a worker holds. kombu's goes on counting one whose acknowledgement was lost on its way."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message; it counts no longer, also if Redis could not be told.

        Otherwise a worker that takes one message at a time would never take another, until its connection breaks. What Redis
        was not told of comes back after the visibility timeout, and its token is spent.
        """
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            self._quick_ack(delivery_tag)
            self.channel.mend(error)
        except BaseException:
            self._quick_ack(delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message up, or back to its queue; it counts no longer, also if Redis could not be told."""
        try:
            super().reject(delivery_tag, requeue)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            self._quick_ack(delivery_tag)
            self.channel.mend(error)
        except BaseException:
            self._quick_ack(delivery_tag)
            raise

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Put back what nobody acknowledged in time."""
        self._free_mutex()
        try:
            super().restore_visible(*args, **options)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            self.channel.mend(error)

    def _free_mutex(self) -> None:
        """Remove a lock without an end, which none of kombu's is: as long as it stands, nobody puts anything back."""
        with self.channel.conn_or_acquire() as client:
            if client.ttl(self.unacked_mutex_key) == _WITHOUT_END:
                client.delete(self.unacked_mutex_key)
                _log.warning("foreign_key_removed", key=self.unacked_mutex_key, action="find out who else writes to the broker")

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
        except ResponseError as error:
            self.mend(error)
            return True

    _size = _mended(redis.Channel._size)
    _put = _mended(redis.Channel._put)
    _queue_bind = _mended(redis.Channel._queue_bind)
    get_table = _mended(redis.Channel.get_table)
    _refresh_bindings = _mended(redis.Channel._refresh_bindings)
    sweep_bindings = _mended(redis.Channel.sweep_bindings)

    def mend(self, error: ResponseError) -> None:
        """Remove every key that stands in the place of one of kombu's and is of another type.

        Raises:
            ResponseError: Redis refused for another reason.
        """
        # Not only at its start: redis-py says before it which command of a pipeline it was, and Redis which script.
        if "WRONGTYPE" not in str(error):
            raise error
        with self.conn_or_acquire() as client:
            for key, kind in self._places().items():
                if client.type(key) not in {kind, b"none"}:
                    client.delete(key)
                    _log.warning("foreign_key_removed", key=key, action="find out who else writes to the broker")

    def _places(self) -> dict[str, bytes]:
        """Return the keys that kombu uses, each with its type."""
        places = {self.unacked_key: b"hash", self.unacked_index_key: b"zset", self.keyprefix_binding_deadlines: b"zset"}
        for queue, step in product(CONSUMED_QUEUES, self.priority_steps):
            places[self._q_for_pri(queue, step)] = b"list"  # type: ignore[no-untyped-call]
        for exchange, form in product(self.state.exchanges, (self.keyprefix_queue, self.keyprefix_binding_permanent)):
            places[form % (exchange,)] = b"set"
        return places

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
