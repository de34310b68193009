"""How commands write: results on stdout, as JSON or as tables; progress on stderr, as bars."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from app.plain_text import escaped
from app.serialization import to_json

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")

_GAP = 2
"""Blanks between two columns."""
_LONGEST_WORD = 36
"""What stays on one line: an id. Longer words are folded."""


def print_json(payload: Any) -> None:
    """Write JSON on stdout, on one line."""
    click.echo(to_json(payload).decode())


class _Console(Console):
    """A console that lets the command line decide what it means that nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Raise what rich has caught; by itself it would end the program with 1."""
        raise  # noqa: PLE0704  (the BrokenPipeError that is being handled)


def make_table(*columns: Column | str) -> Table:
    """Return an empty table, to be filled with text and printed by `print_table`."""
    return Table(*columns)


def numeric(title: str) -> Column:
    """Return a column of numbers."""
    return Column(title, justify="right")


def print_table(table: Table) -> None:
    """Write a table on stdout and cut nothing off.

    A file gets one line for each row. On a terminal there are colours (unless NO_COLOR=1), and columns are folded; on one too narrow for
    words and ids, each row becomes lines of its own: a value's title, and the value.
    """
    titles = [str(column.header) for column in table.columns]
    rows = [[escaped(str(cell)) for cell in row] for row in zip(*(column.cells for column in table.columns), strict=True)]
    columns = [list(column) for column in zip(titles, *rows, strict=True)]
    whole = [max(map(cell_len, column)) for column in columns]
    needed = [min(_LONGEST_WORD, max(map(_longest_word, column))) for column in columns]
    # A name is shown as it is: what looks like markup or like an emoji's name stays that text.
    width = None if sys.stdout.isatty() else sum(whole) + _GAP * len(whole)
    console = _Console(highlight=False, markup=False, emoji=False, width=width)
    spare = console.width - _GAP * len(columns) - sum(needed)
    if spare < 0 and rows:
        _print_records(console, titles, rows)
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    widths = _widened(needed, whole, spare) if spare >= 0 else [None] * len(columns)
    for title, column, column_width in zip(titles, table.columns, widths, strict=True):
        shown.add_column(title, justify=column.justify, overflow="fold", width=column_width)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def _widened(needed: list[int], whole: list[int], spare: int) -> list[int]:
    """Return the columns' widths: those that lack little get it whole, the others share the rest."""
    widths = needed[:]
    order = sorted(range(len(needed)), key=lambda index: whole[index] - needed[index])
    for place, index in enumerate(order):
        more = min(whole[index] - needed[index], spare // (len(order) - place))
        widths[index] += more
        spare -= more
    return widths


def _print_records(console: Console, titles: list[str], rows: list[list[str]]) -> None:
    for number, row in enumerate(rows):
        if number:
            console.print()
        record = Table(Column(style="bold", no_wrap=True), Column(overflow="fold"), box=None, pad_edge=False, show_header=False)
        for title, value in zip(titles, row, strict=True):
            record.add_row(title, value)
        console.print(record)


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
