"""`db`: prepares and migrates a database that is not the embedded stack's."""

from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import click

from app import database_setup
from app.config import load_settings
from app.errors import ConfigurationError


@click.group()
def db() -> None:
    """The database: bootstrap, migrate."""


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@db.command()
@click.option(
    "--superuser-url-file",
    type=_FILE,
    help="File that holds postgresql://user:password@host:port/postgres of a superuser; a file, so that no list of processes shows it.",
)
@click.option("--superuser-url", help="Instead: postgresql://user@host:port/postgres, with the password in --superuser-password-file.")
@click.option("--superuser-password-file", type=_FILE, help="File of the password for --superuser-url.")
def bootstrap(superuser_url_file: Path | None, superuser_url: str | None, superuser_password_file: Path | None) -> None:
    """Make roles, passwords, database and the extension vector, or bring them up to date."""
    if superuser_url_file is not None and superuser_url is None and superuser_password_file is None:
        url = _url_of(superuser_url_file)
    elif superuser_url_file is None and superuser_url is not None and superuser_password_file is not None:
        url = _url_with_password(superuser_url, superuser_password_file)
    else:
        raise ConfigurationError("say who the superuser is: --superuser-url-file, or --superuser-url with --superuser-password-file")
    database_setup.bootstrap(load_settings(), url)
    click.echo("the database is ready to be migrated: `python -m app db migrate`")


def _url_of(file: Path) -> str:
    url = file.read_text(encoding="utf-8").strip()
    if not url.startswith("postgresql"):
        raise ConfigurationError(f"{file} must hold postgresql://user:password@host:port/postgres")
    return url


def _url_with_password(raw: str, file: Path) -> str:
    url = urlsplit(raw)
    if not url.scheme.startswith("postgresql") or not url.username or url.password is not None:
        raise ConfigurationError("--superuser-url must look like postgresql://user@host:port/postgres, without a password")
    password = file.read_text(encoding="utf-8").strip()
    if not password:
        raise ConfigurationError(f"{file} is empty; write the superuser's password into it")
    host = url.netloc.rpartition("@")[2]
    return urlunsplit(url._replace(netloc=f"{quote(url.username, safe='')}:{quote(password, safe='')}@{host}"))


@db.command()
@click.option("--revision", default="head", show_default=True, help="Alembic revision to go up to.")
def migrate(revision: str) -> None:
    """Bring the schema up to a revision and register the keys in the secret files."""
    settings = load_settings()
    database_setup.migrate(settings, revision)
    database_setup.ensure_first_keys(settings)
    click.echo("the schema is up to date")
