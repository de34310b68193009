"""The command line: finds the command, loads only that one, turns expected errors into one line."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from app.cli.command import Group
from app.cli.completion import COMPLETE_VARIABLE
from app.cli.interrupts import INTERRUPTED, end_unread, ends_at_once
from app.config import load_settings
from app.errors import NexusError
from app.stack.control import attach

COMMANDS: dict[str, tuple[str, str]] = {
    "agents": ("app.cli.agents:agents", "An agent as a whole: export, import, forget."),
    "completion": ("app.cli.completion:completion", "Print a script with which the shell completes these commands: bash, zsh, fish."),
    "db": ("app.cli.db:db", "The database: bootstrap an external one, migrate; dump, restore."),
    "demo": ("app.cli.demo:demo", "Start the stack, store and find a few hundred memories, stop."),
    "embedding": ("app.cli.embedding:embedding", "The embedding model: status, migrate to another in place, roll back."),
    "integrity": ("app.cli.integrity:integrity", "Proof: verify receipts, seal the ledger, check it, with or without a database."),
    "keys": ("app.cli.keys:keys", "API keys: issue, list, rotate, revoke; the audit log."),
    "mcp": ("app.cli.mcp:mcp", "The memory as tools for agents (MCP): serve, stdio."),
    "psql": ("app.cli.stack:psql", "Open psql on the running stack."),
    "queue": ("app.cli.queue:queue", "The embedding queue: status, dead rows, replay, advice on workers."),
    "reconcile": ("app.cli.reconcile:reconcile", "Compare the stores and repair what differs; earlier runs."),
    "secrets": ("app.cli.secrets:secrets", "Secret files: write the missing ones, change the others."),
    "stack": ("app.cli.stack:stack", "The embedded stack: up, down, restart, status."),
}
"""Name -> (module:command, one-line help). The help stands here so that `--help` loads no module."""

_OWN_SERVERS = frozenset({"completion", "demo", "mcp", "psql", "secrets", "stack"})
"""Commands that look for the servers themselves, or need none."""


class LazyGroup(Group):
    """A group that imports a command when it is used: `secrets init` must not wait for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every name, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported now, or None when there is none of this name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if cmd_name not in _OWN_SERVERS:
            _use_running_stack()
        module, _, attribute = entry[0].partition(":")
        with ends_at_once():
            command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry[0]} is not a click command")
        return command

    def sentence_of(self, ctx: click.Context, name: str) -> str:
        """Return a command's help without importing it."""
        return COMMANDS[name][1]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Return what may stand next, without importing a command."""
        names = [CompletionItem(name, help=COMMANDS[name][1]) for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; one that does not say by itself how things stand when it is interrupted ends with one word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            raise SystemExit(INTERRUPTED) from None
        except BrokenPipeError:
            end_unread()
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what every command has in common."""
        with formatter.section("Every command"):
            formatter.write_dl(list(_IN_COMMON))


_IN_COMMON = (
    ("COMMAND --help", "Says what it does, shows examples, and lists its exit statuses."),
    ("--json", "Results as JSON on stdout, alone; what is said to people goes to stderr."),
    (
        "exit status",
        "0 done; 1 not done, one line on stderr says why; 2 the command line is wrong; 130 interrupted; "
        "141 nobody read the output to its end; others where a command's help says so.",
    ),
)


def _use_running_stack() -> None:
    """Point this process at the stack on DATA_DIR, whose servers listen on ports of their own choice."""
    running = attach(load_settings())
    if running is not None:
        for name in ("database_url", "redis_url", "broker_url"):
            os.environ[name.upper()] = getattr(running, name)


@click.group(cls=LazyGroup, no_args_is_help=False, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def nexus(ctx: click.Context) -> None:
    """NEXUS Cerebro, the durable memory of AI agents. Settings are environment variables, listed in .env.example."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run the command line; an expected error is one line on stderr and exit status 1."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (held to the end)
    if sys.stdout is None:  # Closed by the caller: the next file opened would take its place, and results be lost.
        _fail("stdout is closed; send it to /dev/null if nobody is to read it")
    try:
        nexus(prog_name="python -m app", complete_var=COMPLETE_VARIABLE)
    except NexusError as error:
        _fail(error.message)
    except OSError as error:  # A file that cannot be read or written; what a server does is a NexusError.
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or type(error).__name__)
    except UnicodeDecodeError:
        _fail("the file is not UTF-8 text")


def _fail(message: str) -> None:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(1)
