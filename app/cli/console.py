"""How commands write: results on stdout, as JSON or as tables; progress on stderr, as bars."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from app.serialization import to_json

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")

_WIDTH_OF_A_FILE = 200


def print_json(payload: Any) -> None:
    """Write JSON on stdout, on one line."""
    click.echo(to_json(payload).decode())


def make_table(*columns: Column | str) -> Table:
    """Return an empty table as every command shows one: no lines, columns as wide as what they hold."""
    return Table(*columns, box=None, pad_edge=False, header_style="bold")


def numeric(title: str) -> Column:
    """Return a column of numbers."""
    return Column(title, justify="right")


def print_table(table: Table) -> None:
    """Write a table on stdout: coloured on a terminal (NO_COLOR=1 is respected), wide enough for a program elsewhere."""
    width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
    # A name is shown as it is: what looks like markup or like an emoji's name stays that text.
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


def bars(*columns: ProgressColumn, transient: bool = True) -> Progress:
    """Return progress bars on stderr that show on a terminal only.

    Args:
        columns: What stands in a line.
        transient: Whether they are gone once all is done.
    """
    return Progress(*columns, console=Console(stderr=True), transient=transient, disable=not sys.stderr.isatty())


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator["Bar"]:
    """Show progress on stderr while the block runs.

    Args:
        what: What is counted, in the plural.
        total: How many there are; None when that is not known.
    """
    with bars(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        yield Bar(progress, progress.add_task(what, total=total))


class Bar:
    """One bar."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, count: int) -> None:
        """Count so many more as done."""
        self._progress.advance(self._task, count)

    def update(self, done: int, total: int | None) -> None:
        """Show how many of how many are done."""
        self._progress.update(self._task, completed=done, total=total)
