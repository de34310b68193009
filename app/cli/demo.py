"""`demo`: stores, finds and verifies a few hundred memories, on a stack of its own, on one that runs, or anywhere."""

from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from app.cli.command import Command
from app.cli.console import json_option, print_json
from app.cli.interrupts import INTERRUPTED
from app.config import Settings, load_settings
from app.demo.report import make_console
from app.demo.run import DemoResult, run_demo
from app.errors import ConfigurationError
from app.stack import control
from app.stack.foreground import stopped_at_the_end
from app.stack.readiness import base_url as url_of
from app.stack.service import Stack


def _read_key(settings: Settings, path: Path | None) -> str:
    if path is None:
        return settings.secret("admin_api_key")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read the API key from {path} ({type(error).__name__}); name its file with --api-key-file"
        ) from error


@click.command(
    cls=Command,
    exits={1: "It showed something that must not be (the last line says what), or another error."},
    examples=["demo", "demo --base-url https://nexus.example.org --api-key-file key.txt"],
)
@click.option("--base-url", metavar="URL", help="Run it against a service that is up already, here or elsewhere.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with an administrator's key; the generated one if not given.")
@json_option
def demo(base_url: str | None, api_key_file: Path | None, as_json: bool) -> None:
    """Start the stack, store and find a few hundred memories, stop.

    A stack that already runs is used and left running. A second run stores nothing twice.
    """
    settings = load_settings()
    running = control.attach(settings)
    if base_url is not None or running is not None:
        target = running or settings
        url, key = base_url or url_of(target.host, target.port), _read_key(target, api_key_file)
        result = run_demo(url, key, make_console(stderr=as_json))
    else:
        result = _run_on_own_stack(settings, make_console(stderr=as_json))
    if as_json:
        print_json({"passed": result.passed, **asdict(result)})
    if not result.passed:
        raise SystemExit(1)


def _run_on_own_stack(settings: Settings, console: Console) -> DemoResult:
    own = Stack(settings, report=lambda line: click.echo(line, err=True))
    with stopped_at_the_end(own, interrupted_status=INTERRUPTED):
        own.up()
        return run_demo(url_of(own.settings.host, own.settings.port), own.settings.secret("admin_api_key"), console)
