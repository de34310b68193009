"""`stack` and `psql`: the embedded stack from the command line."""

import json
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
from rich.console import Console
from rich.table import Table

from app.config import ROLE_SECRETS, Role, Settings, load_settings
from app.errors import StackError
from app.stack import control, environment
from app.stack.foreground import stopped_at_the_end
from app.stack.layout import PROJECT_ROOT, Layout
from app.stack.lock import owner_pid
from app.stack.postgres import binaries
from app.stack.readiness import base_url
from app.stack.service import Stack
from app.stack.supervisor import log_tail

_NOT_RUNNING = 3
"""Exit status of `stack status` when no stack runs, as of an init script."""


@click.group()
def stack() -> None:
    """The embedded stack: up, down, status."""


@stack.command()
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


@stack.command()
def down() -> None:
    """Stop the stack on DATA_DIR, or what a killed one left behind."""
    click.echo("stopped" if control.stop(load_settings(), _say) else "no stack runs here")


@stack.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show the processes; exit status 3 when no stack runs."""
    found = control.status(load_settings())
    if as_json:
        processes = [asdict(process) for process in found.processes]
        facts = {**asdict(found.state), "owner_pid": found.owner, "leftovers": found.leftovers, "processes": processes}
        click.echo(json.dumps(facts, indent=1))
    else:
        _print_status(found)
    if found.owner is None:
        raise SystemExit(_NOT_RUNNING)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--role", type=click.Choice(get_args(Role)), default="nexus_ro", show_default=True, help="Who to log in as.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(role: Role, arguments: tuple[str, ...]) -> None:
    """Open psql on the running stack, or on DATABASE_URL; further arguments are psql's."""
    settings = load_settings()
    running = control.attach(settings)
    if running is None and not environment.is_given(settings, "database_url"):
        raise control.none_runs(settings)
    url = urlsplit((running or settings).database_url)
    # By environment: other users of this machine can read a command line.
    login = {"PGHOST": url.hostname or "127.0.0.1", "PGPORT": str(url.port or 5432), "PGDATABASE": url.path.strip("/"), "PGUSER": role}
    login["PGPASSWORD"] = settings.secret(ROLE_SECRETS[role])
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
        table = Table("process", "state", "pid", "uptime", box=None)
        for process in found.processes:
            minutes, seconds = divmod(int(process.uptime_seconds), 60)
            table.add_row(process.name, process.state.lower(), str(process.pid or "-"), f"{minutes // 60}:{minutes % 60:02}:{seconds:02}")
        Console(highlight=False).print(table)
