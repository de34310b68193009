"""`db`: prepares and migrates a database that is not the embedded stack's."""

from pathlib import Path

import click

from app import database_setup
from app.config import load_settings
from app.errors import ConfigurationError


@click.group()
def db() -> None:
    """The database: bootstrap, migrate."""


@db.command()
@click.option(
    "--superuser-url-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="File that holds postgresql://user:password@host:port/postgres of a superuser; a file, so that no list of processes shows it.",
)
def bootstrap(superuser_url_file: Path) -> None:
    """Make roles, passwords, database and the extension vector, or bring them up to date."""
    url = superuser_url_file.read_text(encoding="utf-8").strip()
    if not url.startswith("postgresql"):
        raise ConfigurationError(f"{superuser_url_file} must hold postgresql://user:password@host:port/postgres")
    database_setup.bootstrap(load_settings(), url)
    click.echo("the database is ready to be migrated: `python -m app db migrate`")


@db.command()
@click.option("--revision", default="head", show_default=True, help="Alembic revision to go up to.")
def migrate(revision: str) -> None:
    """Bring the schema up to a revision and register the keys in the secret files."""
    settings = load_settings()
    database_setup.migrate(settings, revision)
    database_setup.ensure_first_keys(settings)
    click.echo("the schema is up to date")
