"""Revisions go up, down and up to the same catalogue, agree with the tables in code, and bear being run twice at once."""

import logging
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory

from app.config import Settings
from app.database_setup import alembic_config, bootstrap, migrate
from app.db import Database
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.migrations.catalogue import fingerprint

ROOT = Path(__file__).resolve().parents[2]


def downgrade(database: Database, revision: str) -> None:
    with database.transaction() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def test_up_down_up_ends_at_the_same_catalogue(owner_database: Database, database_settings: Settings, sql: Sql) -> None:
    first = fingerprint(sql)
    downgrade(owner_database, "base")
    below = fingerprint(sql)
    migrate(database_settings)
    assert fingerprint(sql) == first
    # And nothing of it stayed when it was down, but Alembic's own table and what bootstrap made.
    left = {line.split()[0] for line in below if "nexus_memory" in line or "memory_system" in line or "consciousness" in line}
    assert left <= {"database"}


def test_vectors_of_semantic_memories_come_along(owner_database: Database, database_settings: Settings, sql: Sql) -> None:
    """0010 moves them from the memories' rows into a table of their own; one that is not of the present words stays behind."""
    downgrade(owner_database, "0009")
    vector = "array_fill(0.5, ARRAY[384])::real[]::public.vector"
    sql(
        "INSERT INTO nexus_memory.semantic_memories (agent_id, concept, definition)"
        " VALUES ('alice', 'tide', 'the sea moves'), ('bob', 'tide', 'a detergent'), ('bob', 'weir', 'holds water')"
    )
    sql(
        f"UPDATE nexus_memory.semantic_memories SET embedding = {vector}, embedding_version = 'miniLM-384-chunked@v3',"
        " embedding_sha256 = CASE concept WHEN 'weir' THEN sha256('x') ELSE input_sha256 END"
    )
    migrate(database_settings)
    moved = (
        "SELECT v.agent_id, m.definition, v.model_id::int FROM nexus_memory.semantic_vectors v JOIN nexus_memory.semantic_memories m USING"
    )
    assert sql(f"{moved} (memory_id) WHERE v.input_sha256 = m.input_sha256 ORDER BY 1") == [
        ("alice", "the sea moves", 1),
        ("bob", "a detergent", 1),
    ]
    assert sql.one("SELECT bool_and(vector_sha256 = sha256(public.vector_send(embedding))) FROM nexus_memory.semantic_vectors")
    assert sql.one("SELECT count(*) FROM nexus_memory.semantic_vectors") == 2


def test_migration_at_head_changes_nothing(database_settings: Settings, sql: Sql) -> None:
    first = fingerprint(sql)
    migrate(database_settings)
    assert fingerprint(sql) == first


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE nexus_memory.zep_episodic_memory ALTER COLUMN language SET DEFAULT 'es'",
        "ALTER TABLE nexus_memory.zep_episodic_memory ALTER COLUMN session_id SET NOT NULL",
        "ALTER TABLE nexus_memory.zep_episodic_memory NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE nexus_memory.zep_episodic_memory DISABLE TRIGGER auto_generate_embedding",
        "ALTER TABLE nexus_memory.zep_episodic_memory RESET (fillfactor)",
        "ALTER TABLE nexus_memory.zep_episodic_memory DROP CONSTRAINT ck_zep_episodic_memory_importance",
        "DROP INDEX nexus_memory.ix_zep_episodic_memory_tags",
        "DROP POLICY worker_access ON memory_system.ledger",
        "ALTER POLICY agent_isolation ON memory_system.ledger USING (true)",
        "GRANT UPDATE (content) ON nexus_memory.zep_episodic_memory TO nexus_worker",
        "GRANT TRUNCATE ON memory_system.ledger TO nexus_app",
        "GRANT CREATE ON SCHEMA nexus_memory TO nexus_definer",
        "GRANT EXECUTE ON FUNCTION memory_system.current_agent() TO PUBLIC",
        "ALTER FUNCTION memory_system.totals(text) OWNER TO nexus_superuser",
        "ALTER FUNCTION memory_system.totals(text) SECURITY INVOKER",
        "ALTER FUNCTION memory_system.totals(text) RESET search_path",
        "ALTER DEFAULT PRIVILEGES FOR ROLE nexus_superuser GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
        "CREATE FUNCTION nexus_memory.extra() RETURNS int LANGUAGE sql RETURN 1",
        "UPDATE memory_system.embedding_models SET fingerprint = 'other'",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
    ],
)
def test_fingerprint_sees(change: str, catalogue: Sql) -> None:
    before = fingerprint(catalogue)
    catalogue("BEGIN")
    try:
        catalogue(change)
        assert fingerprint(catalogue) != before
    finally:
        catalogue("ROLLBACK")


def test_tables_in_code_are_those_of_the_revisions(owner_database: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), owner_database.transaction() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.check(config)  # Raises when it would generate an operation.
    assert [record.getMessage() for record in caplog.records] == []


def test_one_head_whose_docstrings_say_why() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert len(script.get_heads()) == 1
    for revision in script.walk_revisions():
        assert len(revision.longdoc.strip()) > 40, f"revision {revision.revision} does not say why it is"


def test_every_sql_file_is_run_by_one_revision() -> None:
    # A downgrade brings an earlier revision's function back.
    versions = (ROOT / "migrations" / "versions").glob("*.py")
    revisions = [path.read_text(encoding="utf-8").partition("\ndef downgrade")[0] for path in versions]
    files = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "migrations" / "sql").glob("*.sql")}
    for name in files:
        if name.startswith("part_"):
            assert any(f"-- include {name}" in text for text in files.values()), name
            continue
        # Policies are run by the name of their table.
        names = {name, name.removeprefix("policies_").removesuffix("_v1")}
        assert sum(any(f'"{known}"' in text for known in names) for text in revisions) == 1, name


def test_two_migrations_at_once_take_turns(servers: TestServers, catalogue: Sql) -> None:
    name = "nexus_test_concurrent"
    settings = servers.settings_for(name)
    environment = os.environ | {
        "DATABASE_URL": settings.database_url,
        "SECRETS_DIR": str(settings.secrets_dir),
        "PYTHONPATH": str(ROOT),
    }
    program = "from app.config import load_settings; from app.database_setup import migrate; migrate(load_settings())"
    try:
        bootstrap(settings, servers.superuser_dsn)
        running = [
            subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        for process in running:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
        with closing(servers.superuser(name)) as there:
            assert fingerprint(Sql(there)) == fingerprint(catalogue)
    finally:
        servers.drop(name)
