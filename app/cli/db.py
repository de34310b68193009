"""`db`: prepares and migrates a database that is not the embedded stack's; dumps and restores either."""

from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import click

from app import database_setup
from app.cli.command import Group
from app.cli.console import json_option, print_json
from app.cli.services import given_settings
from app.config import ROLE_SECRETS, Settings, load_settings
from app.errors import ConfigurationError
from app.stack import control
from app.stack.dump import dump, restore, superuser_url

_superuser_url_file = click.option(
    "--superuser-url-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    help="For the server of DATABASE_URL: file that holds postgresql://user:password@host:port/postgres of a superuser.",
)


@click.group(cls=Group)
def db() -> None:
    """The database: bootstrap, migrate, dump, restore."""


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@db.command(
    examples=[
        "db bootstrap --superuser-url-file superuser-url.txt",
        "db bootstrap --superuser-url postgresql://postgres@db.example:5432/postgres --superuser-password-file password.txt",
    ]
)
@click.option(
    "--superuser-url-file",
    type=_FILE,
    help="File that holds postgresql://user:password@host:port/postgres of a superuser; a file, so that no list of processes shows it.",
)
@click.option("--superuser-url", help="Instead: postgresql://user@host:port/postgres, with the password in --superuser-password-file.")
@click.option("--superuser-password-file", type=_FILE, help="File of the password for --superuser-url.")
@json_option
def bootstrap(*, superuser_url_file: Path | None, superuser_url: str | None, superuser_password_file: Path | None, as_json: bool) -> None:
    """Make roles, passwords, database and the extension vector, or bring them up to date."""
    if superuser_url_file is not None and superuser_url is None and superuser_password_file is None:
        url = _read_url(superuser_url_file)
    elif superuser_url_file is None and superuser_url is not None and superuser_password_file is not None:
        url = _url_with_password(superuser_url, superuser_password_file)
    else:
        raise click.UsageError("say who the superuser is: --superuser-url-file, or --superuser-url with --superuser-password-file")
    settings = load_settings()
    database_setup.bootstrap(settings, url)
    if as_json:
        print_json({"database_url": settings.database_url, "roles": list(ROLE_SECRETS)})
        return
    click.echo("the database is ready to be migrated: `python -m app db migrate`")


def _url_with_password(raw: str, file: Path) -> str:
    url = urlsplit(raw)
    if not url.scheme.startswith("postgresql") or not url.username or url.password is not None:
        raise click.UsageError("--superuser-url must look like postgresql://user@host:port/postgres, without a password")
    password = file.read_text(encoding="utf-8").strip()
    if not password:
        raise ConfigurationError(f"{file} is empty; write the superuser's password into it")
    host = url.netloc.rpartition("@")[2]
    return urlunsplit(url._replace(netloc=f"{quote(url.username, safe='')}:{quote(password, safe='')}@{host}"))


@db.command(examples=["db migrate", "db migrate --revision 0014"])
@click.option("--revision", default="head", show_default=True, help="Alembic revision to go up to.")
@json_option
def migrate(revision: str, as_json: bool) -> None:
    """Bring the schema up to a revision and register the keys in the secret files."""
    settings = given_settings()
    database_setup.migrate(settings, revision)
    database_setup.ensure_first_keys(settings)
    current = database_setup.current_revision(settings)
    if as_json:
        print_json({"revision": current})
        return
    click.echo(f"the schema is up to date: revision {current}")


@db.command(
    "dump",
    examples=["db dump nexus.dump", "db dump nexus.dump --superuser-url-file superuser-url.txt"],
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), help="File to write, in pg_dump's custom format.")
@_superuser_url_file
@json_option
def dump_database(file: Path, superuser_url_file: Path | None, as_json: bool) -> None:
    """Write the whole database into a file, as it is at this moment; everything goes on meanwhile.

    The file holds all memories and the hashes of the keys: keep it as safe as the database. Keep the folder of secrets with it.
    """
    settings, superuser = _target(superuser_url_file)
    size = dump(settings, superuser, file)
    if as_json:
        print_json({"file": str(file), "bytes": size})
        return
    click.echo(f"{file}: {size:,} bytes; keep a copy of {settings.secrets_dir} with it")


@db.command(
    "restore",
    exits={1: "The present database stays in its place; one line on stderr says why."},
    examples=["db restore nexus.dump", "db restore nexus.dump --replace"],
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="What `db dump` wrote.")
@click.option("--replace", is_flag=True, help="Also when the present database holds episodes; it is kept under another name.")
@_superuser_url_file
@json_option
def restore_database(*, file: Path, replace: bool, superuser_url_file: Path | None, as_json: bool) -> None:
    """Put a dump in the place of the present database.

    It is restored beside it, brought to the newest schema, and takes its place in one step. Processes connect again by themselves; restart
    them if the dump is of another embedding model.
    """
    settings, superuser = _target(superuser_url_file)
    restored = restore(settings, superuser, file, lambda line: click.echo(line, err=True), replaces_episodes=replace)
    if as_json:
        print_json(restored)
        return
    click.echo(f"restored: {restored.episodes:,} episodes; the {restored.episodes_before:,} of before are kept in {restored.before}")


def _target(superuser_url_file: Path | None) -> tuple[Settings, str]:
    settings = load_settings()
    if superuser_url_file is not None:
        return settings, _read_url(superuser_url_file)
    running = control.attached(settings)
    return running, superuser_url(running)


def _read_url(file: Path) -> str:
    url = file.read_text(encoding="utf-8").strip()
    if not url.startswith("postgresql"):
        raise ConfigurationError(f"{file} must hold postgresql://user:password@host:port/postgres")
    return url
