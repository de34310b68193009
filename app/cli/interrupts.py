"""Ends a program by Ctrl-C in one word while it still imports, and by SIGPIPE when nobody reads what it writes."""

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""What a shell reports of a command that Ctrl-C ended."""

UNREAD = 141
"""What a shell reports of a command whose output nobody read to its end."""


@contextmanager
def ends_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process while the block imports: nothing is begun yet, and libraries make other errors of KeyboardInterrupt."""
    # Ctrl-C that somebody ignores, or has chosen to meet otherwise, is left to them; and only the main thread may choose.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, b"\ninterrupted\n")
    os._exit(INTERRUPTED)


def end_unread() -> None:
    """End the process by SIGPIPE, as programs do whose reader has gone; return when stdout and stderr still have one."""
    if any(map(_is_unread, (1, 2))):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)


def _is_unread(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
