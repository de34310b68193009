"""`secrets`: write the secret files that are missing, and change those that are there."""

import click

from app.cli.command import Group
from app.cli.console import json_option, print_json
from app.config import ROTATABLE_SECRETS, load_settings
from app.stack.secret_files import write_missing


@click.group(cls=Group)
def secrets() -> None:
    """Secret files: write the missing ones, change the others."""


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


@secrets.command(
    exits={
        1: "Not done, one line on stderr says why; run it again, or `stack down` and `stack up`, which bring servers and files together."
    },
    examples=["secrets rotate pg_app_password", "secrets rotate --all"],
)
@click.argument(
    "names", nargs=-1, type=click.Choice(ROTATABLE_SECRETS), metavar="[NAME]...", help="Which: " + ", ".join(ROTATABLE_SECRETS) + "."
)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@json_option
def rotate(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Give secrets new random values, in their files and in the running stack.

    Passwords of PostgreSQL: no request fails and nothing restarts. The password of Redis: Redis, dispatcher, workers, beat and Flower
    restart; the API goes on without its cache meanwhile. The administrator's key: the old one is revoked; take the new one from its file.
    The console's: whoever is signed in signs in again.

    The key that seals the ledger never changes.
    """
    # Imported here because SQLAlchemy takes longer to load than `secrets init` takes to run.
    from app.stack.rotation import rotate as rotate_secrets

    if bool(names) is everything:
        raise click.UsageError("name the secrets, or give --all")
    done = rotate_secrets(load_settings(), ROTATABLE_SECRETS if everything else names, lambda line: click.echo(line, err=True))
    if as_json:
        print_json(done)
        return
    click.echo(f"changed: {', '.join(done.names)}" + (f"; restarted: {', '.join(done.restarted)}" if done.restarted else ""))
    for sentence in done.left_to_do:
        click.echo(f"left to do: {sentence}")
