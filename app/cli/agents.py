"""`agents`: an agent as a whole, exported to a file, imported from one, or forgotten."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from app.cli.command import Group
from app.cli.console import json_option, make_table, numeric, print_json, print_table, progress_bar
from app.cli.services import open_services
from app.identity.service import is_agent_id
from app.transfer.lines import MAX_LINE_BYTES
from app.transfer.models import KINDS
from app.transfer.report import ImportReport


class _AgentId(click.ParamType[str]):
    """The name of an agent."""

    name = "agent"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_agent_id(value):
            self.fail("must have 1 to 128 letters, digits, dots, underscores, hyphens or at signs", param, ctx)
        return value


_agent = click.argument("agent", type=_AgentId(), help="The agent's agent_id.")


@click.group(cls=Group)
def agents() -> None:
    """An agent as a whole: export, import, forget."""


@agents.command(
    "export",
    examples=["agents export ada -o ada.ndjson", "agents export ada | gzip > ada.ndjson.gz"],
    without_json="the export itself is NDJSON on stdout",
)
@_agent
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=None, help="File to write; stdout if not given.")
def export_agent(agent: str, output: Path | None) -> None:
    """Write all of an agent's memory as NDJSON; the file is put in place when it is whole."""
    services = open_services()
    total = sum(services.agents.size(agent).get(store, 0) for store in _EXPORTED)
    with progress_bar("memories", total) as advance:
        lines = services.exports.lines(agent, advance)
        if output is None:
            for line in lines:
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        else:
            part = output.with_name(f"{output.name}.part")
            with part.open("wb") as file:
                part.chmod(0o600)
                file.writelines(lines)
            part.replace(output)
    if output is not None:
        click.echo(f"{output}: {total} memories of {agent}", err=True)
    if not total:
        click.echo(f"{agent} has nothing: the export is empty", err=True)


_EXPORTED = ("episodes", "semantic_memories", "working_contexts", "memory_blocks", "checkpoints")


@agents.command(
    "import",
    exits={1: "A line failed (named on stderr), the file was cut off, or another error."},
    examples=["agents import ada ada.ndjson", "zcat ada.ndjson.gz | python -m app agents import ada -"],
)
@_agent
@click.argument("file", type=click.File("rb"), help="What `agents export` wrote; - for stdin.")
@json_option
def import_agent(agent: str, file: BinaryIO, as_json: bool) -> None:
    """Store an export under the ids it brings.

    It may be run again: what is there already is left as it is.
    """
    services = open_services()
    with progress_bar("memories", None) as advance:
        report = services.imports.run(agent, _lines(file), advance)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if report.failed or not report.is_complete:
        sys.exit(1)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 1)


def _print_report(report: ImportReport) -> None:
    table = make_table("kind", *map(numeric, ("imported", "unchanged", "expired")))
    for kind in KINDS:
        table.add_row(kind, *(f"{counts.get(kind, 0):,}" for counts in (report.imported, report.unchanged, report.expired)))
    print_table(table)
    for error in report.errors:
        click.echo(f"line {error.line}: {error.status} {error.code}: {error.detail}", err=True)
    if report.failed:
        click.echo(f"{report.failed} lines failed", err=True)
    if not report.is_complete:
        click.echo("the file has no end line that agrees with it: it was cut off or changed", err=True)


@agents.command(
    exits={1: "Something remains, the question was answered with no, or another error."},
    examples=["agents forget ada", "agents forget ada --yes --json"],
)
@_agent
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def forget(agent: str, yes: bool, as_json: bool) -> None:
    """Delete everything of an agent from every store, and count what remains."""
    services = open_services()
    size = services.agents.size(agent)
    if not yes:
        click.confirm(f"Delete {size['episodes']} episodes and everything else of {agent}?", abort=True, err=True)
    with progress_bar("episodes", size["episodes"]) as advance:
        forgotten = services.agents.forget(agent, None, advance, may_unlock=True)
    if as_json:
        print_json(forgotten)
    else:
        table = make_table("store", numeric("deleted"), numeric("remaining"))
        for store in dict.fromkeys([*forgotten.deleted, *forgotten.remaining]):
            table.add_row(store, str(forgotten.deleted.get(store, "-")), str(forgotten.remaining.get(store, "-")))
        print_table(table)
    if any(forgotten.remaining.values()):
        sys.exit(1)
