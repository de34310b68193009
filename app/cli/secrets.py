"""`secrets`: write the secret files that are missing."""

import click

from app.cli.command import Group
from app.cli.console import json_option, print_json
from app.config import load_settings
from app.stack.secret_files import write_missing


@click.group(cls=Group)
def secrets() -> None:
    """Secret files: write the missing ones."""


@secrets.command(examples=["secrets init"])
@json_option
def init(as_json: bool) -> None:
    """Write every secret file that is missing; never overwrite one."""
    written = write_missing(load_settings())
    if as_json:
        print_json({"created": [str(path) for path in written.created], "kept": [str(path) for path in written.kept]})
        return
    for path in written.created:
        click.echo(f"wrote {path}")
    if not written.created:
        click.echo(f"all {len(written.kept)} secrets are there already")
