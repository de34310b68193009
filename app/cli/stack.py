"""`stack` and `psql`: the embedded stack from the command line."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import click

from app.cli.command import Command, Group
from app.cli.console import json_option, make_table, numeric, print_json, print_table
from app.cli.interrupts import INTERRUPTED
from app.config import ROLE_SECRETS, Role, Settings, load_settings
from app.errors import StackError
from app.stack import control, environment
from app.stack.foreground import stopped_at_the_end
from app.stack.layout import PROJECT_ROOT, Layout
from app.stack.lock import owner_pid
from app.stack.postgres import Postgres, binaries
from app.stack.readiness import base_url
from app.stack.service import Stack
from app.stack.supervisor import log_tail

_SUPERUSER = "postgres"

_NOT_RUNNING = 3
"""Exit status of `stack status` when no stack runs, as of an init script."""


@click.group(cls=Group)
def stack() -> None:
    """The embedded stack: up, down, restart, status."""


@stack.command(
    exits={
        0: "It was stopped (Ctrl-C, TERM), or with --detach it is ready.",
        1: "It did not come up, or a process was given up; one line on stderr says which and why.",
        INTERRUPTED: None,
    },
    examples=["stack up", "stack up --detach", "PORT=8100 DATA_DIR=second python -m app stack up"],
    without_json="it serves until it is stopped; `stack status --json` says what runs",
)
@click.option("--detach", is_flag=True, help="Return once the stack is ready and leave it running.")
def up(detach: bool) -> None:
    """Start everything and keep it running until Ctrl-C."""
    settings = load_settings()
    if detach:
        _up_detached(settings)
        return
    running = Stack(settings, report=_say)
    with stopped_at_the_end(running):
        running.up()
        _say_ready(running.settings)
        running.watch()


@stack.command(exits={0: "Nothing of a stack runs any more."}, examples=["stack down"])
@json_option
def down(as_json: bool) -> None:
    """Stop the stack on DATA_DIR, or what a killed one left behind."""
    was_running = control.stop(load_settings(), _say)
    if as_json:
        print_json({"was_running": was_running})
        return
    click.echo("stopped" if was_running else "no stack runs here")


@stack.command(examples=["stack restart", "stack restart worker_1 worker_2"])
@click.argument(
    "names", nargs=-1, metavar="[NAME]...", help="Programs as `stack status` shows them; every one but PostgreSQL and Redis if not given."
)
@json_option
def restart(names: tuple[str, ...], as_json: bool) -> None:
    """Restart programs of the running stack and return when it is ready again.

    Workers end their batch before; nothing is lost. While the API restarts, it is away for some seconds.
    """
    restarted = control.restart(load_settings(), names, _say)
    if as_json:
        print_json({"restarted": restarted})
        return
    click.echo(f"restarted: {', '.join(restarted)}")


@stack.command(exits={_NOT_RUNNING: "No stack runs."}, examples=["stack status", "stack status --json"])
@json_option
def status(as_json: bool) -> None:
    """Show where the stack is and how its processes are."""
    found = control.status(load_settings())
    if as_json:
        processes = [asdict(process) for process in found.processes]
        print_json({**asdict(found.state), "owner_pid": found.owner, "leftovers": found.leftovers, "processes": processes})
    else:
        _print_status(found)
    if found.owner is None:
        raise SystemExit(_NOT_RUNNING)


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    exits={
        0: "psql ended well.",
        1: "psql cannot go on, or no stack runs here.",
        2: "psql lost the connection, or the command line is wrong.",
        3: "A script of psql failed under ON_ERROR_STOP.",
        INTERRUPTED: None,
    },
    examples=["psql", "psql -- -c 'SELECT current_user, version()'", "psql --role nexus_worker -- --csv -c 'SELECT ...'"],
    without_json="the output is psql's; `-- --csv` makes it readable for a program",
)
@click.option(
    "--role",
    type=click.Choice([*get_args(Role), _SUPERUSER]),
    default="nexus_ro",
    show_default=True,
    help="Who to log in as; postgres is the superuser of the embedded stack's cluster.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, help="Arguments of psql, after --.")
def psql(role: str, arguments: tuple[str, ...]) -> None:
    """Open psql on the running stack, or on DATABASE_URL.

    As nexus_ro and nexus_app one sees the rows of one agent: SET app.current_agent_id = 'ada'. As nexus_worker, those of all.
    """
    settings = load_settings()
    running = control.attach(settings)
    if running is None and not environment.is_given(settings, "database_url"):
        raise control.none_runs(settings)
    url = urlsplit((running or settings).database_url)
    # By environment: other users of this machine can read a command line.
    login = {"PGHOST": url.hostname or "127.0.0.1", "PGPORT": str(url.port or 5432), "PGDATABASE": url.path.strip("/"), "PGUSER": role}
    if role != _SUPERUSER:
        login["PGPASSWORD"] = settings.secret(ROLE_SECRETS[role])  # type: ignore[index]
    elif running is None or environment.is_given(settings, "database_url"):
        raise StackError("postgres is the superuser of the embedded stack's cluster; an external server's is not known here")
    else:
        login["PGPASSWORD"] = Postgres(Layout(running.data_dir), _say).superuser_password()
    program = binaries() / "psql"
    os.execve(program, [str(program), *arguments], {**os.environ, **login})  # noqa: S606 - psql takes this process' place


def _up_detached(settings: Settings) -> None:
    """Start `stack up` in a session of its own and return when it is ready."""
    absolute = environment.absolute(settings)
    layout = Layout(absolute.data_dir)
    layout.create()
    if (owner := owner_pid(layout.lock_file)) is not None:
        raise StackError(f"a stack already runs on {layout.root} (process {owner}); `python -m app stack down` stops it")
    log = layout.logs / "stack.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "app", "stack", "up"],
            cwd=PROJECT_ROOT,
            env={**os.environ, "DATA_DIR": str(absolute.data_dir), "SECRETS_DIR": str(absolute.secrets_dir)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(settings, child, log)
    except BaseException:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise


def _wait_until_ready(settings: Settings, child: "subprocess.Popen[bytes]", log: Path) -> None:
    # No limit of its own: `stack up` gives every step one, and ends when it is exceeded.
    while child.poll() is None:
        running = control.attach(settings)
        if running is not None:
            _say_ready(running)
            return
        time.sleep(0.2)
    raise StackError(log_tail(log, lines=1).removeprefix("error: "))


def _url(settings: Settings) -> str:
    return base_url(settings.host, settings.port)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _say_ready(settings: Settings) -> None:
    key_file = settings.secret_path("admin_api_key")
    url = _url(settings)
    click.echo(
        f"NEXUS Cerebro is ready at {url} (documentation: {url}/docs, console: {url}/console)\n"
        f"  key:    {key_file}\n"
        f"  Flower: http://127.0.0.1:{settings.flower_port} (user admin, password: the key)\n"
        f"  logs:   {settings.data_dir / 'logs'}\n"
        f"  try:    curl -s {url}/memory/action -H \"X-API-Key: $(cat '{key_file}')\" -H 'Content-Type: application/json' "
        '-d \'{"agent_id": "me", "content": "The first thing I remember."}\''
    )


def _print_status(found: control.Status) -> None:
    if found.owner is not None:
        click.echo(f"{found.state.phase}: {base_url(found.state.host, found.state.port)} (owner process {found.owner})")
    elif found.leftovers:
        click.echo(f"not running; {found.leftovers} processes were left behind: `stack up` recovers, `stack down` stops them")
    else:
        click.echo("not running")
    if found.processes:
        table = make_table("process", "state", numeric("pid"), numeric("uptime"))
        for process in found.processes:
            minutes, seconds = divmod(int(process.uptime_seconds), 60)
            table.add_row(process.name, process.state.lower(), str(process.pid or "-"), f"{minutes // 60}:{minutes % 60:02}:{seconds:02}")
        print_table(table)
