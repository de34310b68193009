"""A dump as nexus_backup and a restore into a database that bootstrap made give the same database; a damaged dump changes nothing."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.bootstrap import Services, build_services
from app.config import Settings
from app.database_setup import bootstrap, migrate
from app.stack import postgres
from tests.factories.encoder import FakeEncoder
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.factories.workshop import store
from tests.migrations.catalogue import fingerprint

RESTORED = "nexus_test_restored"
_TABLES = """
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname IN ('public', 'nexus_memory', 'memory_system', 'consciousness') ORDER BY 1
"""


def contents(sql: Sql) -> dict[str, tuple[int, str]]:
    """Return the number of rows of each table and a hash over them."""
    tables = [row[0] for row in sql(_TABLES)]
    return {
        table: sql(f"SELECT count(*), coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} t")[0] for table in tables
    }


def run(program: str, servers: TestServers, *arguments: str) -> subprocess.CompletedProcess[str]:
    url = make_url(servers.superuser_dsn)
    login = {"PGHOST": str(url.host), "PGPORT": str(url.port), "PGUSER": str(url.username), "PGPASSWORD": str(url.password)}
    command = [str(postgres.binaries() / program), *arguments]
    return subprocess.run(command, env={**os.environ, **login}, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def dump(servers: TestServers, database_settings: Settings, services: Services, drain: Callable[[], int], tmp_path: Path) -> Path:
    """A dump of a database with episodes that are embedded, one that waits and one that was deleted."""
    kept = store(services, 5)
    drain()
    services.episodes.delete("alice", kept[0])
    store(services, 1)
    file = tmp_path / "nexus.dump"
    name = make_url(database_settings.database_url).database or ""
    done = run("pg_dump", servers, "--role=nexus_backup", "--format=custom", f"--file={file}", name)
    assert done.returncode == 0, done.stderr
    return file


@pytest.fixture
def empty(servers: TestServers) -> Iterator[Settings]:
    """Settings of a database that bootstrap has just made, without schema."""
    settings = servers.settings_for(RESTORED)
    bootstrap(settings, servers.superuser_dsn)
    yield settings
    servers.drop(RESTORED)


def restore(servers: TestServers, file: Path) -> subprocess.CompletedProcess[str]:
    return run("pg_restore", servers, "--exit-on-error", "--single-transaction", f"--dbname={RESTORED}", str(file))


def test_restored_database_is_the_same_and_goes_on(
    servers: TestServers, dump: Path, empty: Settings, sql: Sql, encoder: FakeEncoder, database_settings: Settings
) -> None:
    done = restore(servers, dump)
    assert done.returncode == 0, done.stderr
    with closing(servers.superuser(RESTORED)) as connection:
        there = Sql(connection)
        assert contents(there) == contents(sql)
        assert fingerprint(there) == fingerprint(sql)
    migrate(empty)
    restored = build_services(empty, load=lambda _: encoder)
    try:
        before = restored.integrity.identity()
        assert (before.accepted, before.drift) == (6, 0)
        store(restored, 1)
        after = restored.integrity.identity()
        assert (after.accepted, after.pending, after.drift) == (7, before.pending + 1, 0)
    finally:
        restored.close()


def test_damaged_dump_is_refused_and_leaves_nothing(servers: TestServers, dump: Path, empty: Settings) -> None:
    dump.write_bytes(dump.read_bytes()[: dump.stat().st_size * 2 // 3])
    assert restore(servers, dump).returncode != 0
    with closing(servers.superuser(RESTORED)) as connection:
        assert contents(Sql(connection)) == {}


def test_dump_as_a_role_under_row_security_is_refused_and_not_short(servers: TestServers, dump: Path, database_settings: Settings) -> None:
    name = make_url(database_settings.database_url).database or ""
    done = run("pg_dump", servers, "--role=nexus_superuser", "--format=custom", f"--file={dump}", name)
    assert done.returncode != 0
    assert "row-level security" in done.stderr
