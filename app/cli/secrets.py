"""`secrets`: write the secret files that are missing."""

import click

from app.config import load_settings
from app.stack.secret_files import write_missing


@click.group()
def secrets() -> None:
    """Secret files: write the missing ones."""


@secrets.command()
def init() -> None:
    """Write every secret file that is missing; never overwrite one."""
    written = write_missing(load_settings())
    for path in written.created:
        click.echo(f"wrote {path}")
    if not written.created:
        click.echo(f"all {len(written.kept)} secrets are there already")
