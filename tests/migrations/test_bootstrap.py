"""The bootstrap can be run again, brings changed passwords in, and refuses a database that would index words wrongly."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import make_url

from app.config import ROLE_SECRETS, Role, Settings
from app.database_setup import bootstrap, ensure_first_keys
from app.errors import ConfigurationError, StackError
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.migrations.catalogue import fingerprint


def log_in(settings: Settings, role: Role, password: str) -> None:
    url = make_url(settings.database_url)
    psycopg2.connect(host=url.host, port=url.port, dbname=url.database, user=role, password=password).close()


@pytest.fixture
def rotated(servers: TestServers, database_settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings in which nexus_ro has another password; afterwards the session's holds again."""
    file = tmp_path / "password.txt"
    file.write_text("quoted'and\"back\\slashed %s :x\n")
    yield database_settings.model_copy(update={"pg_readonly_password_file": file})
    bootstrap(database_settings, servers.superuser_dsn)


def test_second_bootstrap_changes_nothing(servers: TestServers, database_settings: Settings, sql: Sql) -> None:
    before = fingerprint(sql)
    bootstrap(database_settings, servers.superuser_dsn)
    assert fingerprint(sql) == before


def test_bootstrap_brings_a_changed_password_in(servers: TestServers, database_settings: Settings, rotated: Settings) -> None:
    old, new = database_settings.secret("pg_readonly_password"), rotated.secret("pg_readonly_password")
    log_in(database_settings, "nexus_ro", old)
    bootstrap(rotated, servers.superuser_dsn)
    log_in(rotated, "nexus_ro", new)
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        log_in(database_settings, "nexus_ro", old)


@pytest.mark.parametrize("role", sorted(ROLE_SECRETS))
def test_every_role_gives_its_own_password(role: Role, database_settings: Settings) -> None:
    log_in(database_settings, role, database_settings.secret(ROLE_SECRETS[role]))
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        log_in(database_settings, role, "wrong")
    with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
        log_in(database_settings, role, "")


def test_no_password_reaches_the_server_in_clear(catalogue: Sql) -> None:
    stored = [row[0] for row in catalogue("SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'nexus%' AND rolcanlogin")]
    assert len(stored) == len(ROLE_SECRETS)
    assert all(re.match(r"SCRAM-SHA-256\$", value) for value in stored)


def test_no_login_role_is_powerful(catalogue: Sql) -> None:
    assert (
        catalogue(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'nexus%' AND rolname <> 'nexus_backup'"
            " AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)"
        )
        == []
    )
    assert catalogue("SELECT rolname FROM pg_roles WHERE rolname IN ('nexus_definer', 'nexus_backup') AND rolcanlogin") == []


@pytest.mark.parametrize(
    "options",
    [
        "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C' ENCODING 'UTF8'",
        "LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'UTF8'",
        "LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'SQL_ASCII'",
    ],
)
def test_database_of_another_locale_is_refused(options: str, servers: TestServers) -> None:
    name = "nexus_test_locale"
    with closing(servers.superuser("postgres")) as connection:
        Sql(connection)(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        try:
            with pytest.raises(ConfigurationError, match=r"C\.UTF-8"):
                bootstrap(servers.settings_for(name), servers.superuser_dsn)
        finally:
            servers.drop(name)


def test_unreachable_server_is_named_without_a_password(database_settings: Settings) -> None:
    with pytest.raises(StackError) as raised:
        bootstrap(database_settings, "postgresql+psycopg2://postgres:topsecret@127.0.0.1:1/postgres")
    assert "127.0.0.1:1" in raised.value.message
    assert "topsecret" not in raised.value.message


def test_first_keys_are_registered_once(database_settings: Settings, sql: Sql) -> None:
    ensure_first_keys(database_settings)
    ensure_first_keys(database_settings)
    assert sql("SELECT role, name FROM memory_system.api_keys ORDER BY role") == [
        ("admin", "first administrator"),
        ("operator", "Prometheus"),
    ]
