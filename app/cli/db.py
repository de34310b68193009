"""`db`: prepares and migrates a database that is not the embedded stack's."""

from pathlib import Path

import click

from app import database_setup
from app.cli.command import Group
from app.cli.console import json_option, print_json
from app.config import ROLE_SECRETS, load_settings
from app.errors import ConfigurationError


@click.group(cls=Group)
def db() -> None:
    """The database: bootstrap, migrate."""


@db.command(examples=["db bootstrap --superuser-url-file superuser-url.txt"])
@click.option(
    "--superuser-url-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="File that holds postgresql://user:password@host:port/postgres of a superuser; a file, so that no list of processes shows it.",
)
@json_option
def bootstrap(superuser_url_file: Path, as_json: bool) -> None:
    """Make roles, passwords, database and the extension vector, or bring them up to date."""
    url = superuser_url_file.read_text(encoding="utf-8").strip()
    if not url.startswith("postgresql"):
        raise ConfigurationError(f"{superuser_url_file} must hold postgresql://user:password@host:port/postgres")
    settings = load_settings()
    database_setup.bootstrap(settings, url)
    if as_json:
        print_json({"database_url": settings.database_url, "roles": list(ROLE_SECRETS)})
        return
    click.echo("the database is ready to be migrated: `python -m app db migrate`")


@db.command(examples=["db migrate", "db migrate --revision 0014"])
@click.option("--revision", default="head", show_default=True, help="Alembic revision to go up to.")
@json_option
def migrate(revision: str, as_json: bool) -> None:
    """Bring the schema up to a revision and register the first administrator's key."""
    settings = load_settings()
    database_setup.migrate(settings, revision)
    database_setup.ensure_admin_key(settings)
    current = database_setup.current_revision(settings)
    if as_json:
        print_json({"revision": current})
        return
    click.echo(f"the schema is up to date: revision {current}")
