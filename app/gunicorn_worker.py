"""gunicorn's threaded worker, with threads that look after a connection to its end.

A thread stays a moment with a client that sends one request after the other, reads what is left of a refused body, and ends connections
itself: gunicorn's main thread, which accepts everybody's, waits up to two seconds for each client that does not hang up.
"""

import contextlib
import select
import socket
import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from app.config import load_settings
from app.patient_socket import PatientSocket

_LINGER_MS = 2
_MOST_READS_AT_THE_END = 64
_MOST_DISCARDED_BYTES = 64 * 1024 * 1024
_DISCARDING_SECONDS = 5.0
"""What is read of a body that nobody wants, so that its sender gets to read why: most clients read no answer before they have sent all."""


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
        conn.sock.begin()
        return super().handle(conn)

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        # gunicorn's own reads 64 KiB at most, and nothing where the connection is to be closed.
        deadline = time.monotonic() + _DISCARDING_SECONDS
        return bool(conn.parser.finish_body(deadline=deadline, max_bytes=_MOST_DISCARDED_BYTES)) and keepalive

    def _sends_more(self, conn: Any) -> bool:
        # Never at the expense of a connection that waits for a thread.
        if not self.alive or not self.tpool._work_queue.empty():
            return False
        waiting = select.poll()
        waiting.register(conn.sock, select.POLLIN)
        return bool(waiting.poll(_LINGER_MS))

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
