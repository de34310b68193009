"""The database as a file: dumped while everything runs, and restored beside the present one, whose place it then takes in one step."""

import os
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from psycopg2 import sql
from psycopg2.extensions import connection as PgConnection  # noqa: N812 - the class has a lower-case name
from sqlalchemy import URL, make_url

from app.config import Settings
from app.database_setup import connect_superuser, ensure_first_keys, make_database, migrate, prepare_inside
from app.errors import Conflict, StackError
from app.stack.layout import Layout, State
from app.stack.postgres import Postgres, binaries

_RESTORING = "{}_restoring"
_HELD = "SELECT count(*) FROM nexus_memory.zep_episodic_memory"


@dataclass(frozen=True)
class Restored:
    """What a restore did.

    Attributes:
        episodes: How many the database holds now.
        before: The name under which the database of before is kept; nobody can connect to it.
        episodes_before: How many it holds.
    """

    episodes: int
    before: str
    episodes_before: int


def superuser_url(running: Settings) -> str:
    """Return the URL of the running embedded stack's superuser."""
    layout = Layout(running.data_dir)
    return Postgres(layout, lambda _: None).superuser_dsn(State.read(layout).postgres_port)


def dump(settings: Settings, superuser: str, file: Path) -> int:
    """Write the database into a file of pg_dump's custom format, as it is at this moment, and return the file's bytes.

    Args:
        settings: Names the database.
        superuser: URL of a superuser of its server: row security hides every row from anybody else.
        file: Put in place when it is whole; mode 600.

    Raises:
        StackError: pg_dump failed.
    """
    part = file.with_name(f"{file.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as output:
            _run("pg_dump", ["--format=custom"], superuser, _name(settings), stdout=output.fileno())
            os.fsync(output.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def restore(settings: Settings, superuser: str, file: Path, report: Callable[[str], None], *, replaces_episodes: bool) -> Restored:
    """Restore a dump into a database of its own, bring it to the newest schema, and put it in the place of the present one.

    Whatever fails, the present database stays in its place. Processes are disconnected once, and connect again by themselves.

    Args:
        settings: Names the database.
        superuser: URL of a superuser of its server.
        file: What `dump` wrote.
        report: Is told, in one line each, what happens.
        replaces_episodes: Whether the present database may hold episodes.

    Raises:
        Conflict: It holds some and may not.
        StackError: The file is no dump, or a statement of it failed.
    """
    name = _name(settings)
    new = _RESTORING.format(name)
    before = f"{name}_before_{datetime.now(UTC):%Y%m%d%H%M%S}"
    held = _episodes(superuser, name)
    if held and not replaces_episodes:
        raise Conflict(f"{name} holds {held} episodes; give --replace to put the dump in its place (the database is kept as {before})")
    with closing(connect_superuser(superuser, "postgres")) as connection:
        _drop(connection, new)
        make_database(connection, new)
        try:
            report(f"restoring {file} into {new}")
            _run("pg_restore", ["--exit-on-error", "--no-password", str(file)], superuser, new)
            with closing(connect_superuser(superuser, new)) as inside:
                prepare_inside(inside)
            target = settings.model_copy(update={"database_url": make_url(settings.database_url).set(database=new).render_as_string()})
            migrate(target)
            ensure_first_keys(target)
            episodes = _episodes(superuser, new)
        except BaseException:
            _drop(connection, new)
            raise
        report(f"{new} holds {episodes} episodes; it takes the place of {name}, which is kept as {before}")
        _swap(connection, name, new, before)
    return Restored(episodes, before, held)


def _name(settings: Settings) -> str:
    return make_url(settings.database_url).database or "nexus_memory"


def _episodes(superuser: str, database: str) -> int:
    with closing(connect_superuser(superuser, database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('nexus_memory.zep_episodic_memory') IS NOT NULL")
        if not _value(cursor.fetchone()):
            return 0
        cursor.execute(_HELD)
        return int(_value(cursor.fetchone()))


def _value(row: tuple[int, ...] | None) -> int:
    return 0 if row is None else row[0]


def _drop(connection: PgConnection, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _swap(connection: PgConnection, name: str, new: str, before: str) -> None:
    """Rename both databases in one transaction; nobody may be connected to the old one, so it takes no connections from now on."""
    old, fresh, kept = map(sql.Identifier, (name, new, before))
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(old))
        try:
            cursor.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname IN (%s, %s)", (name, new))
            cursor.execute("BEGIN")
            cursor.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, kept))
            cursor.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(fresh, old))
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            cursor.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(old))
            raise


def _run(program: str, arguments: list[str], superuser: str, database: str, stdout: int | None = None) -> None:
    """Run one of PostgreSQL's programs as the superuser, whose password stands in no list of processes."""
    url: URL = make_url(superuser)
    login = {"PGHOST": url.host or "127.0.0.1", "PGPORT": str(url.port or 5432), "PGUSER": url.username or "postgres"}
    environment = {**os.environ, **login, "PGPASSWORD": url.password or ""}
    done = subprocess.run(
        [str(binaries() / program), f"--dbname={database}", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout or subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        # The first lines only: what follows may be a statement with its values.
        raise StackError(f"{program} failed: {' | '.join(done.stderr.strip().splitlines()[:1])}")
