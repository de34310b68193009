"""What commands share: the services of a running stack, and how results and progress are written."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.bootstrap import Services, build_services
from app.config import load_settings
from app.observability.logs import configure_logging
from app.serialization import to_json
from app.stack import control
from app.stack.environment import is_given

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def open_services() -> Services:
    """Return the services, logged in as nexus_app: without an agent that role sees no content at all."""
    settings = load_settings()
    if not is_given(settings, "database_url"):
        raise control.none_runs(settings)
    # What a command did it prints itself; its log has only what went wrong, and on stderr.
    configure_logging(settings.model_copy(update={"log_level": "WARNING"}), "command")
    return build_services(settings)


def print_json(payload: Any) -> None:
    """Write JSON on stdout."""
    click.echo(to_json(payload).decode())


def print_table(table: Table) -> None:
    """Write a table on stdout, wide enough to be read by a program too."""
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator["Advance"]:
    """Show progress on stderr while the block runs, on a terminal only.

    Args:
        what: What is counted, in the plural.
        total: How many there are; None when that is not known.
    """
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=total)
        yield Advance(progress, task)


class Advance:
    """Moves a bar on."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, count: int) -> None:
        """Count so many more as done."""
        self._progress.advance(self._task, count)
