"""How a command presents itself: help that is never cut off, examples, and what each exit status means."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from app.cli.interrupts import INTERRUPTED, UNREAD

_PROGRAM = "python -m app"

EVERY_EXIT = {
    0: "Done.",
    1: "Not done; one line on stderr says why.",
    2: "The command line is wrong.",
    INTERRUPTED: "Interrupted by Ctrl-C.",
    UNREAD: "Ended by SIGPIPE: nobody read the output to its end.",
}
"""What an exit status means of every command that does not say otherwise."""


class Command(click.Command):
    """A command whose help shows examples and its exit statuses.

    Args:
        exits: Exit statuses that mean something else or more than those of every command; None for one that it never has.
        examples: Command lines, one of each use; `python -m app` is set before one that does not hold it.
        without_json: Why there is no --json; a test asks every command for one or the other.
    """

    def __init__(
        self,
        *arguments: Any,
        exits: Mapping[int, str | None] | None = None,
        examples: Sequence[str] = (),
        without_json: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        meanings = {**EVERY_EXIT, **(exits or {})}
        self.exits = {status: meaning for status, meaning in sorted(meanings.items()) if meaning is not None}
        self.examples = [example if _PROGRAM in example else f"{_PROGRAM} {example}" for example in examples]
        self.without_json = without_json

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the exit statuses below the options."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        with formatter.section("Exit status"):
            formatter.write_dl([(str(status), meaning) for status, meaning in self.exits.items()])
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """A group of commands that shows the first sentence of each whole."""

    command_class = Command
    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write names and helps; click alone would cut them off at the width of a line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.sentence_of(ctx, name)) for name in self.list_commands(ctx)])

    def sentence_of(self, ctx: click.Context, name: str) -> str:
        """Return the sentence that a list of commands shows of one."""
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(limit=1000)
