"""A connection whose client may dawdle for so long and no longer, however it spreads that over its bytes."""

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from typing_extensions import Buffer

_BYTES_A_SECOND = 16 * 1024
"""Who sends and reads faster than this never runs out of time."""


class SlowClient(TimeoutError):
    """The client took too long; gunicorn treats it as one that left."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client took too long")


class PatientSocket(socket.socket):
    """A socket that waits for its client a bounded time in all, not for each call anew: a byte now and then wins nothing.

    What this side does in between, for example store what came, costs the client nothing.

    Args:
        connection: An accepted connection; the object given is of no use afterwards.
        seconds: How long a client may take for a request, and for an answer, beside a second for each 16 KiB of it.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        super().__init__(fileno=connection.detach())
        self._seconds = self._most = self._left = seconds
        self._wakes_at = 1

    def begin(self, seconds: float | None = None) -> None:
        """Give the client all of its time, or as much as is said: a request begins, or the rest of one that nobody wants."""
        self._most = self._left = self._seconds if seconds is None else seconds

    def peek(self, most: int) -> bytes | None:
        """Return what has come and was not read, at most so many bytes; nothing when the client has ended, None when it may still send."""
        try:
            return super().recv(most, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def wake_at(self, count: int) -> None:
        """Have pollers see this socket as readable only when so many bytes have come, or the client has ended."""
        if count != self._wakes_at:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self._wakes_at = count

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return what the client sends next; at once where the socket does not block.

        Raises:
            SlowClient: It has used up its time.
        """
        if self.gettimeout() == 0:
            return super().recv(bufsize, flags)
        if self._left <= 0:
            raise SlowClient
        began = time.monotonic()
        with self._no_longer_than(self._left):
            data = super().recv(bufsize, flags)
        self._left = min(self._most, self._left - (time.monotonic() - began) + len(data) / _BYTES_A_SECOND)
        return data

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """Send everything.

        Raises:
            SlowClient: The client does not take it up.
        """
        with self._no_longer_than(self._seconds + memoryview(data).nbytes / _BYTES_A_SECOND):
            super().sendall(data, flags)

    @contextmanager
    def _no_longer_than(self, seconds: float) -> Iterator[None]:
        limit = self.gettimeout()
        self.settimeout(seconds if limit is None else min(seconds, limit))
        try:
            yield
        except TimeoutError:
            raise SlowClient from None
        finally:
            self.settimeout(limit)
