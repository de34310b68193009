"""The command that runs the demo against a service that is already up."""

from pathlib import Path

import click
from rich.text import Text

from app.config import load_settings
from app.demo.report import make_console
from app.demo.run import run_demo
from app.errors import ConfigurationError, NexusError


def _read_key(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read the API key from {path} ({type(error).__name__}); name its file with --api-key-file"
        ) from error


@click.command()
@click.option("--base-url", help="Where the service is. Default: http://HOST:PORT of the settings.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with an administrator's key. Default: the generated one.")
def demo(base_url: str | None, api_key_file: Path | None) -> None:
    """Store, find and verify the demo's episodes in a running service."""
    try:
        settings = load_settings()
        key = _read_key(api_key_file or settings.secret_path("admin_api_key"))
        passed = run_demo(base_url or f"http://{settings.host}:{settings.port}", key, make_console())
    except NexusError as error:
        make_console(stderr=True).print(Text(f"error: {error.message}", style="bold red"), soft_wrap=True)
        raise SystemExit(1) from error
    if not passed:
        raise SystemExit(1)
