"""Waits, with a progress bar, until every accepted episode has its vector."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.demo.client import QueueCounts
from app.demo.report import print_fact
from app.demo.story import DemoError

STALL_SECONDS = 300.0
POLL_SECONDS = 0.2
PLAIN_STEP = 0.25
"""Without a terminal a line is printed each time this much more of the whole is done."""


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how many episodes are searchable: a bar on a terminal, a few lines elsewhere."""
    if not console.is_terminal:
        shown = 0.0

        def show_line(done: int) -> None:
            nonlocal shown
            if done == total or done / total >= shown + PLAIN_STEP:
                shown = done / total
                print_fact(console, f"{done} of {total} searchable by meaning")

        yield show_line
        return
    columns = (TextColumn("   searchable by meaning"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)


def wait_until_searchable(
    read_queue: Callable[[], QueueCounts],
    total: int,
    console: Console,
    stall_seconds: float = STALL_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Return when nothing is pending or processing any more.

    Args:
        read_queue: Returns the queue's counts as of now.
        total: Episodes that the demo stored, at least 1.
        console: Where the progress is shown.
        stall_seconds: How long the queue may stand still.
        poll_seconds: Time between two looks.

    Raises:
        DemoError: The queue stood still for too long, or it could not be read.
    """
    best, last_progress_at = None, time.monotonic()
    with _progress(console, total) as show:
        while True:
            counts = read_queue()
            show(total - min(total, counts.outstanding))
            if counts.outstanding == 0:
                return
            finished = counts.done + counts.dead
            if best is None or finished > best:
                best, last_progress_at = finished, time.monotonic()
            elif time.monotonic() - last_progress_at > stall_seconds:
                raise DemoError(
                    f"the queue stood still for {stall_seconds:.0f} s with {counts.pending} pending, {counts.processing} processing "
                    f"and {counts.dead} dead; look at /health for a worker that is gone"
                )
            time.sleep(poll_seconds)
