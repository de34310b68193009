"""The command line: finds the command, loads only that one, turns expected errors into one line."""

import importlib
import os
import sys

import click

from app.config import load_settings
from app.errors import NexusError
from app.stack.control import attach

COMMANDS: dict[str, tuple[str, str]] = {
    "agents": ("app.cli.agents:agents", "An agent as a whole: export, import, forget."),
    "db": ("app.cli.db:db", "The database: bootstrap an external one, migrate."),
    "demo": ("app.cli.demo:demo", "Start the stack, store and find a few hundred memories, stop."),
    "embedding": ("app.cli.embedding:embedding", "The embedding model: status, migrate to another in place, roll back."),
    "integrity": ("app.cli.integrity:integrity", "Proof: verify receipts, seal the ledger, check it, with or without a database."),
    "keys": ("app.cli.keys:keys", "API keys: issue, list, rotate, revoke; the audit log."),
    "mcp": ("app.cli.mcp:mcp", "The memory as tools for agents (MCP): serve, stdio."),
    "psql": ("app.cli.stack:psql", "Open psql on the running stack."),
    "queue": ("app.cli.queue:queue", "The embedding queue: status, dead rows, replay, advice on workers."),
    "reconcile": ("app.cli.reconcile:reconcile", "Compare the stores and repair what differs; earlier runs."),
    "secrets": ("app.cli.secrets:secrets", "Secret files: write the missing ones."),
    "stack": ("app.cli.stack:stack", "The embedded stack: up, down, status."),
}
"""Name -> (module:command, one-line help). The help stands here so that `--help` loads no module."""

_OWN_SERVERS = frozenset({"demo", "mcp", "psql", "secrets", "stack"})
"""Commands that look for the servers themselves, or need none."""


class LazyGroup(click.Group):
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
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry[0]} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write names and one-line helps."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


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
    try:
        nexus(prog_name="python -m app")
    except NexusError as error:
        click.echo(f"error: {' '.join(error.message.split())}", err=True)
        sys.exit(1)
