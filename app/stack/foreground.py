"""A stack that lives as long as a command: whatever ends the command stops every process."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from app.stack.service import Stack


@contextlib.contextmanager
def stopped_at_the_end(stack: Stack, interrupted_status: int = 0) -> Iterator[None]:
    """Stop the stack when the block ends, fails or is interrupted; a further Ctrl-C does not disturb the stopping.

    Args:
        stack: Need not be up yet.
        interrupted_status: Exit status of the process after Ctrl-C, TERM or a closed terminal.

    Raises:
        SystemExit: The block was interrupted; everything has been stopped.
    """
    interrupted = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            # Only the first one may unwind: one in the middle of stopping would leave processes behind.
            return
        interrupted = True
        raise KeyboardInterrupt

    handled = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # As `nohup` sets it.
        handled.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(interrupted_status) from None
    finally:
        interrupted = True
        stack.down()
        for number, handler in before.items():
            signal.signal(number, handler)
