"""The command line as a whole: every command reports as JSON or says why not, and its help is whole, exemplified and true."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import click
import pytest

from app.cli.command import EVERY_EXIT, Command
from app.cli.main import COMMANDS, nexus

WITHOUT_JSON = {"agents export", "completion", "integrity heads", "integrity prove", "mcp serve", "mcp stdio", "psql", "stack up"}
"""Commands without --json; each gives its reason in the code."""


@dataclass(frozen=True)
class Leaf:
    name: str
    command: click.Command

    @property
    def context(self) -> click.Context:
        return click.Context(self.command, info_name=f"python -m app {self.name}", terminal_width=80)


def leaves(group: click.Group = nexus, prefix: str = "") -> Iterator[Leaf]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from leaves(command, f"{prefix}{name} ")
        else:
            yield Leaf(prefix + name, command)


LEAVES = list(leaves())
of_every_command = pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.name)


def options(command: click.Command) -> set[str]:
    return {spelling for parameter in command.params if isinstance(parameter, click.Option) for spelling in parameter.opts}


def test_there_are_commands() -> None:
    assert len(LEAVES) > 30
    assert {leaf.name.split()[0] for leaf in LEAVES} == set(COMMANDS)


@of_every_command
def test_command_reports_as_json_or_says_why_it_does_not(leaf: Leaf) -> None:
    assert isinstance(leaf.command, Command)
    assert ("--json" in options(leaf.command)) is (leaf.name not in WITHOUT_JSON)
    assert (leaf.command.without_json is not None) is (leaf.name in WITHOUT_JSON)


@of_every_command
def test_help_is_whole(leaf: Leaf) -> None:
    assert isinstance(leaf.command, Command)
    shown = leaf.command.get_help(leaf.context)
    assert max(len(line) for line in shown.splitlines() if line.strip() not in leaf.command.examples) <= 80
    assert (leaf.command.help or "").rstrip().endswith(".")
    for parameter in leaf.command.params:
        assert getattr(parameter, "help", None), f"{leaf.name} {parameter.name}"
    for status, meaning in leaf.command.exits.items():
        assert re.search(rf"^  {status} +\S", shown, re.MULTILINE), meaning
        assert meaning.endswith(".")


@of_every_command
def test_examples_name_this_command_and_its_own_options(leaf: Leaf) -> None:
    assert isinstance(leaf.command, Command)
    for example in leaf.command.examples:
        words = shlex.split(example.rpartition("python -m app ")[2])
        assert words[: len(leaf.name.split())] == leaf.name.split(), example
        own = words[: words.index("--")] if "--" in words else words
        assert {word for word in own if word.startswith("-") and word != "-"} <= options(leaf.command), example


@pytest.mark.parametrize("name", ["", *sorted({leaf.name.split()[0] for leaf in LEAVES if " " in leaf.name})])
def test_list_of_commands_cuts_nothing_off(name: str) -> None:
    group = nexus if not name else nexus.get_command(click.Context(nexus), name)
    assert isinstance(group, click.Group)
    shown = group.get_help(click.Context(group, info_name="python -m app", terminal_width=80))
    assert "..." not in shown.partition("Commands:")[2]
    assert max(map(len, shown.splitlines())) <= 80


def test_few_commands_have_exit_statuses_of_their_own() -> None:
    assert set(EVERY_EXIT) == {0, 1, 2, 130, 141}
    assert sorted(leaf.name for leaf in LEAVES if isinstance(leaf.command, Command) and 3 in leaf.command.exits) == [
        "psql",
        "reconcile run",
        "stack status",
    ]
