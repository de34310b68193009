"""gunicorn's threaded worker, whose threads work for requests that are there and wait for nobody.

A connection gets a thread when a request's head has come as a whole: until then it costs a file descriptor. The thread stays a moment
with a client that sends one request after the other, reads what is left of a refused body, and ends connections itself: gunicorn's
main thread, which accepts everybody's, waits up to two seconds for each client that does not hang up.
"""

import contextlib
import select
import socket
import time
from typing import Any

from gunicorn.workers.gthread import _DEFER, ThreadWorker

from app.config import load_settings
from app.patient_socket import PatientSocket

_LINGER_MS = 2
_MOST_READS_AT_THE_END = 64

# Of a body that nobody wants so much is read, for so long in all, and with so much waiting for more of it: most clients read no answer
# before they have sent everything, and would never see why they were refused.
_MOST_DISCARDED_BYTES = 64 * 1024 * 1024
_DISCARDING_SECONDS = 5.0
_WAITING_SECONDS = 0.25

_LONGEST_HEAD_BYTES = 64 * 1024
"""A head that is longer is read, and refused, by a thread."""

_END_OF_HEAD = b"\r\n\r\n"


class LingeringThreadWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """Answers the next request of a kept-alive connection in the same thread when it comes at once.

    gunicorn hands a connection back to the main thread after each answer and to a pool thread for the next request: four changes of
    thread under one interpreter lock, a fifth of what a short write costs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._client_seconds = load_settings().body_timeout_seconds

    def handle(self, conn: Any) -> Any:
        """Serve requests of one connection until it pauses, and return whether it is to be kept."""
        if not isinstance(conn.sock, PatientSocket):
            conn.sock = PatientSocket(conn.sock, self._client_seconds)
        kept = self._serve(conn)
        # gunicorn answers True, False, or a mark of its own for a connection that has sent nothing yet.
        while kept is True and self._sends_more(conn):
            kept = self._serve(conn)
        if kept is False:
            self._end(conn.sock)
        return kept

    def _serve(self, conn: Any) -> Any:
        if not self._has_head(conn):
            return _DEFER  # The main thread's poller waits for more of it.
        conn.sock.begin()
        return super().handle(conn)

    def _has_head(self, conn: Any) -> bool:
        """Return whether the head of the next request has come, or it is clear that none will."""
        held = conn.parser.unreader.buf.getvalue() if conn.parser is not None else b""
        come = conn.sock.peek(_LONGEST_HEAD_BYTES)
        if come is None and _is_readable(conn.sock):
            come = conn.sock.peek(_LONGEST_HEAD_BYTES)
        head = (held + (come or b"")).lstrip(b"\r\n")  # Empty lines before it are none of it.
        if _END_OF_HEAD in head or len(head) >= _LONGEST_HEAD_BYTES or _has_ended(conn.sock):
            conn.sock.wake_at(1)
            return True
        conn.sock.wake_at(len(come or b"") + 1)
        return False

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        # gunicorn's own reads 64 KiB at most, and nothing where the connection is to be closed.
        conn.sock.begin(_WAITING_SECONDS)
        deadline = time.monotonic() + _DISCARDING_SECONDS
        return bool(conn.parser.finish_body(deadline=deadline, max_bytes=_MOST_DISCARDED_BYTES)) and keepalive

    def _sends_more(self, conn: Any) -> bool:
        # Never at the expense of a connection that waits for a thread.
        return self.alive and self.tpool._work_queue.empty() and _is_readable(conn.sock)

    @staticmethod
    def _end(connection: socket.socket) -> None:
        """Send what is left to send and the end; the main thread's own wait for the client's end returns at once after this."""
        with contextlib.suppress(OSError):  # The client was faster, or what is left of it is a closed socket.
            connection.shutdown(socket.SHUT_WR)
            # Bytes that nobody read would make the kernel reset the connection, and the client lose the answer.
            connection.setblocking(False)
            for _ in range(_MOST_READS_AT_THE_END):
                if not connection.recv(65536):
                    break
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RD)


def _is_readable(connection: socket.socket) -> bool:
    """Return whether something comes within a moment."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(_LINGER_MS))


def _has_ended(connection: socket.socket) -> bool:
    """Return whether the client sends nothing more."""
    waiting = select.poll()
    waiting.register(connection, select.POLLRDHUP)
    return bool(waiting.poll(0))
