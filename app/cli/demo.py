"""`demo`: stores, finds and verifies a few hundred memories, on a stack of its own, on one that runs, or anywhere."""

from pathlib import Path

import click

from app.config import Settings, load_settings
from app.demo.report import make_console
from app.demo.run import run_demo
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


@click.command()
@click.option("--base-url", help="Run it against a service that is up already, here or elsewhere.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with an administrator's key. Default: the generated one.")
def demo(base_url: str | None, api_key_file: Path | None) -> None:
    """Start the stack, store and find a few hundred memories, stop. A stack that already runs is used and left running."""
    settings = load_settings()
    running = control.attach(settings)
    if base_url is not None or running is not None:
        target = running or settings
        succeeded = run_demo(base_url or url_of(target.host, target.port), _read_key(target, api_key_file), make_console())
    else:
        succeeded = _run_on_own_stack(settings)
    if not succeeded:
        raise SystemExit(1)


def _run_on_own_stack(settings: Settings) -> bool:
    own = Stack(settings, report=lambda line: click.echo(line, err=True))
    with stopped_at_the_end(own, interrupted_status=1):
        own.up()
        return run_demo(url_of(own.settings.host, own.settings.port), own.settings.secret("admin_api_key"), make_console())
