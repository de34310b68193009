"""Prepares a database: roles and extension by a superuser, schema by Alembic as the owner, the first administrator's key."""

import hashlib
from pathlib import Path

import psycopg2
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from psycopg2 import sql
from psycopg2.extensions import connection as PgConnection  # noqa: N812 - the class has a lower-case name
from psycopg2.extensions import encrypt_password
from sqlalchemy import make_url, text

from app.config import ADMIN_KEY_SECRET, METRICS_KEY_SECRET, ROLE_SECRETS, Role, Settings
from app.db import Database
from app.errors import ConfigurationError, StackError

_ROOT = Path(__file__).resolve().parent.parent
_OLDEST_MAJOR = 17
_KEY = text(
    "INSERT INTO memory_system.api_keys (key_sha256, name, role) VALUES (:key_sha256, :name, :role) ON CONFLICT (key_sha256) DO NOTHING"
)
_FIRST_KEYS = {ADMIN_KEY_SECRET: ("first administrator", "admin"), METRICS_KEY_SECRET: ("Prometheus", "operator")}


def connect_superuser(superuser_dsn: str, database: str) -> PgConnection:
    """Return a connection of a superuser to one database, in autocommit.

    Raises:
        StackError: The server cannot be reached or refuses the login.
    """
    url = make_url(superuser_dsn)
    try:
        connection = psycopg2.connect(
            host=url.host, port=url.port, user=url.username, password=url.password, dbname=database, connect_timeout=5
        )
    except psycopg2.OperationalError as error:
        raise StackError(f"cannot log in to {url.host}:{url.port}/{database} as {url.username}: {str(error).strip()}") from error
    connection.autocommit = True
    return connection


def _verifier(connection: PgConnection, role: str, password: str) -> sql.Literal:
    """Return what the server stores of a password. The verifier, not the password, goes there, so no log can hold it."""
    return sql.Literal(encrypt_password(password, role, scope=connection, algorithm="scram-sha-256"))


def set_password(settings: Settings, superuser_dsn: str, role: Role) -> None:
    """Give a role the password that its secret file holds.

    Raises:
        StackError: The server cannot be reached or refuses the login.
    """
    connection = connect_superuser(superuser_dsn, make_url(superuser_dsn).database or "postgres")
    try:
        with connection.cursor() as cursor:
            verifier = _verifier(connection, role, settings.secret(ROLE_SECRETS[role]))
            cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), verifier))
    finally:
        connection.close()


def _make_roles(connection: PgConnection, settings: Settings) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolname FROM pg_roles")
        existing = {row[0] for row in cursor.fetchall()}
        for role, secret in ROLE_SECRETS.items():
            verb = "ALTER" if role in existing else "CREATE"
            cursor.execute(
                sql.SQL(verb + " ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {}").format(
                    sql.Identifier(role), _verifier(connection, role, settings.secret(secret))
                )
            )
        for group, attributes in (("nexus_definer", "NOLOGIN NOBYPASSRLS"), ("nexus_backup", "NOLOGIN BYPASSRLS")):
            verb = "ALTER" if group in existing else "CREATE"
            cursor.execute(sql.SQL(f"{verb} ROLE {{}} NOSUPERUSER NOCREATEDB NOCREATEROLE {attributes}").format(sql.Identifier(group)))
        # So that pg_dump --role=nexus_backup can lock and read what every revision adds.
        cursor.execute("GRANT pg_read_all_data TO nexus_backup")
        # SET without INHERIT: the owner may hand functions to the definer, and does not see what the definer sees.
        cursor.execute("GRANT nexus_definer TO nexus_superuser WITH INHERIT FALSE, SET TRUE")


def make_database(connection: PgConnection, name: str) -> None:
    """Make a database with the locale that words need, owned by nexus_superuser; of one that is there check the locale.

    Raises:
        ConfigurationError: It has another locale.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT datlocprovider, datlocale, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = %s",
            (name,),
        )
        row = cursor.fetchone()
        if row is None:
            cursor.execute(
                sql.SQL(
                    "CREATE DATABASE {} OWNER nexus_superuser TEMPLATE template0 ENCODING 'UTF8'"
                    " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LC_COLLATE 'C' LC_CTYPE 'C'"
                ).format(sql.Identifier(name))
            )
        elif row != ("b", "C.UTF-8", "UTF8"):
            raise ConfigurationError(
                f"database {name} has locale {row[1]} ({row[0]}, {row[2]}); words would be indexed wrongly:"
                " create it with LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' ENCODING 'UTF8'"
            )
        database = sql.Identifier(name)
        cursor.execute(sql.SQL("ALTER DATABASE {} OWNER TO nexus_superuser").format(database))
        cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        cursor.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO nexus_app, nexus_worker, nexus_ro, nexus_backup").format(database))


def prepare_inside(connection: PgConnection) -> None:
    """Make what only a superuser can make inside the database: the extension `vector`, and what PUBLIC may not."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public")
        cursor.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        cursor.execute("GRANT USAGE ON SCHEMA public TO nexus_superuser, nexus_app, nexus_worker, nexus_ro, nexus_definer, nexus_backup")
        # Whatever function the owner makes later, PUBLIC cannot execute it unless a revision says so.
        cursor.execute("ALTER DEFAULT PRIVILEGES FOR ROLE nexus_superuser REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        cursor.execute("ALTER DEFAULT PRIVILEGES FOR ROLE nexus_definer REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")


def bootstrap(settings: Settings, superuser_dsn: str) -> None:
    """Make roles, passwords, the database and the extension `vector`, or bring those that exist up to date. Idempotent.

    Args:
        settings: Names the database (DATABASE_URL) and holds the roles' passwords (secret files).
        superuser_dsn: SQLAlchemy URL of a PostgreSQL superuser on the same server.

    Raises:
        StackError: The server cannot be reached or refuses the login.
        ConfigurationError: The server is too old, or the database has another locale.
    """
    name = make_url(settings.database_url).database or "nexus_memory"
    connection = connect_superuser(superuser_dsn, make_url(superuser_dsn).database or "postgres")
    try:
        if connection.server_version < _OLDEST_MAJOR * 10000:
            raise ConfigurationError(f"PostgreSQL {_OLDEST_MAJOR} or newer is needed; this server is {connection.server_version // 10000}")
        _make_roles(connection, settings)
        make_database(connection, name)
    finally:
        connection.close()
    connection = connect_superuser(superuser_dsn, name)
    try:
        prepare_inside(connection)
    finally:
        connection.close()


def alembic_config() -> Config:
    """Return Alembic's configuration, wherever the process was started."""
    config = Config(str(_ROOT / "alembic.ini"))
    config.set_main_option("script_location", str(_ROOT / "migrations"))
    return config


def migrate(settings: Settings, revision: str = "head") -> None:
    """Bring the schema to a revision, as nexus_superuser.

    Raises:
        DatabaseUnavailable: The database cannot be reached.
    """
    database = Database(settings, "nexus_superuser", "nexus migrations", statement_timeout_seconds=0)
    try:
        with database.transaction() as connection:
            # Two processes that start at once take turns; the second finds nothing left to do.
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('nexus migrations'))"))
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        database.close()


def current_revision(settings: Settings) -> str:
    """Return the revision that the schema is at; empty before the first.

    Raises:
        DatabaseUnavailable: The database cannot be reached.
    """
    database = Database(settings, "nexus_superuser", "nexus migrations")
    try:
        with database.transaction() as connection:
            return MigrationContext.configure(connection).get_current_revision() or ""
    finally:
        database.close()


def ensure_first_keys(settings: Settings) -> None:
    """Register the keys in secrets/, the administrator's and that of Prometheus, those that are not yet. Idempotent."""
    for secret in _FIRST_KEYS:
        register_key(settings, secret, settings.secret(secret))


def register_key(settings: Settings, secret: str, key: str) -> None:
    """Let a key open what the named secret's key does, if it does not yet. Idempotent."""
    name, role = _FIRST_KEYS[secret]
    digest = hashlib.sha256(key.encode()).digest()
    database = Database(settings, "nexus_app", "nexus set-up")
    try:
        with database.transaction() as connection:
            connection.execute(_KEY, {"key_sha256": digest, "name": name, "role": role})
    finally:
        database.close()
