"""How long an answer of PostgreSQL is waited for: a server that stands still, its network alive, holds nobody for ever."""

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg2 import OperationalError, extensions

_GRACE_SECONDS = 5.0
"""How much longer than a statement may run its answer is waited for: PostgreSQL itself ends what runs too long."""

_thread = threading.local()


class PatientConnection(extensions.connection):  # type: ignore[misc]  # psycopg2 ships no types
    """A connection that knows how long its answers may take.

    Attributes:
        answer_seconds: How long the server may say nothing while it is waited for; None is without limit.
    """

    answer_seconds: float | None = None


def waiting_for(connect_seconds: float) -> type[PatientConnection]:
    """Return the class of connections that are waited for so long while they are made."""
    return type("PatientConnection", (PatientConnection,), {"answer_seconds": connect_seconds})


def limit(connection: PatientConnection, statement_timeout_seconds: float) -> None:
    """Set how long a made connection's answers may take; 0 is without limit."""
    connection.answer_seconds = statement_timeout_seconds + _GRACE_SECONDS if statement_timeout_seconds else None


@contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """Wait for answers no longer than that on this thread while the block runs: for all of them together, those of new connections too."""
    _thread.until = time.monotonic() + seconds
    try:
        yield
    finally:
        del _thread.until


def install() -> None:
    """Have psycopg2 wait by this module; for every connection of the process, because it has one such place for all."""
    extensions.set_wait_callback(_wait)


def _wait(connection: Any) -> None:
    """Wait until the server has answered.

    Source: psycopg2, "Support for coroutine libraries": the callback polls the connection; if it raises, the connection is closed.

    Raises:
        OperationalError: The server said nothing for as long as it may.
    """
    answer_seconds: float | None = getattr(connection, "answer_seconds", None)
    until: float | None = getattr(_thread, "until", None)
    readiness = select.poll()
    while (state := connection.poll()) != extensions.POLL_OK:
        began = time.monotonic()
        limits = (answer_seconds, None if until is None else max(until - began, 0.0))
        seconds = min((limit for limit in limits if limit is not None), default=None)
        readiness.register(connection, select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        if not readiness.poll(None if seconds is None else seconds * 1000):
            raise OperationalError(f"PostgreSQL has not answered for {time.monotonic() - began:.0f} s")
