"""Who may do what in the database, read from its catalogue: a new table or function joins by itself."""

import pytest

from tests.factories.statements import Sql

OURS = "('nexus_memory', 'memory_system', 'consciousness')"
SERVICE_ROLES = ("nexus_app", "nexus_worker", "nexus_ro")
NOT_AN_AGENTS_DATA = {"memory_system.api_keys"}
AGENT_POLICY = "(agent_id = NULLIF(current_setting('app.current_agent_id'::text, true), ''::text))"
POLICIES = {
    ("agent_isolation", "PERMISSIVE", "{nexus_app,nexus_ro}", "ALL", AGENT_POLICY, AGENT_POLICY),
    ("worker_access", "PERMISSIVE", "{nexus_worker}", "ALL", "true", "true"),
    ("definer_access", "PERMISSIVE", "{nexus_definer}", "ALL", "true", "true"),
}
_FUNCTIONS = f"FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN {OURS}"


def test_definer_functions_belong_to_the_definer_and_fix_their_search_path(catalogue: Sql) -> None:
    found = catalogue(f"SELECT p.oid::regprocedure::text, p.proowner::regrole::text, p.proconfig {_FUNCTIONS} AND p.prosecdef")
    assert len(found) > 10
    for function, owner, config in found:
        assert owner == "nexus_definer", function
        (path,) = [setting.partition("=")[2] for setting in config or [] if setting.startswith("search_path=")]
        assert path.split(", ")[0] == "pg_catalog", function
        assert path.split(", ")[-1] == "pg_temp", function


def test_functions_in_plpgsql_fix_their_search_path(catalogue: Sql) -> None:
    loose = catalogue(
        f"SELECT p.oid::regprocedure::text {_FUNCTIONS} AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql')"
        " AND NOT coalesce(p.proconfig::text LIKE '%%search_path=%%pg_temp%%', false)"
    )
    assert loose == []


def test_no_function_is_executable_by_public(catalogue: Sql) -> None:
    assert catalogue(f"SELECT p.oid::regprocedure::text {_FUNCTIONS} AND has_function_privilege('public', p.oid, 'EXECUTE')") == []


@pytest.mark.parametrize("role", SERVICE_ROLES)
def test_no_login_role_can_attach_a_trigger_function_to_a_table_of_its_own(role: str, catalogue: Sql) -> None:
    definer_triggers = f"{_FUNCTIONS} AND p.prosecdef AND p.prorettype = 'trigger'::regtype"
    assert catalogue.one(f"SELECT count(*) {definer_triggers}") >= 5
    # Neither may it call the function's owner into being by becoming it.
    assert catalogue(f"SELECT p.proname {definer_triggers} AND has_function_privilege(%s, p.oid, 'EXECUTE')", role) == []
    assert not catalogue.one("SELECT pg_has_role(%s, 'nexus_definer', 'MEMBER')", role)
    assert not catalogue.one("SELECT has_database_privilege(%s, current_database(), 'TEMP')", role)
    creatable = catalogue("SELECT nspname FROM pg_namespace WHERE has_schema_privilege(%s, oid, 'CREATE')", role)
    assert creatable == []


def test_public_has_nothing(catalogue: Sql) -> None:
    assert not catalogue.one("SELECT has_database_privilege('public', current_database(), 'TEMP')")
    assert not catalogue.one("SELECT has_database_privilege('public', current_database(), 'CONNECT')")
    assert not catalogue.one("SELECT has_schema_privilege('public', 'public', 'CREATE')")
    for schema in ("nexus_memory", "memory_system", "consciousness"):
        assert not catalogue.one("SELECT has_schema_privilege('public', %s, 'USAGE')", schema)
    readable = catalogue(
        f"SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN {OURS}"
        " AND c.relkind IN ('r', 'v', 'm', 'p') AND has_table_privilege('public', c.oid, 'SELECT')"
    )
    assert readable == []


def test_definer_and_backup_cannot_create_or_log_in(catalogue: Sql) -> None:
    for role in ("nexus_definer", "nexus_backup"):
        assert catalogue("SELECT nspname FROM pg_namespace WHERE has_schema_privilege(%s, oid, 'CREATE')", role) == []
        assert not catalogue.one("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", role)


def privileges(catalogue: Sql, role: str, table: str) -> set[str]:
    """Return what a role may do to a table, whole or in any column."""
    held = {
        privilege
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES", "MAINTAIN")
        if catalogue.one("SELECT has_table_privilege(%s, %s, %s)", role, table, privilege)
    }
    columns = ("SELECT", "INSERT", "UPDATE", "REFERENCES")
    return held | {name for name in columns if catalogue.one("SELECT has_any_column_privilege(%s, %s, %s)", role, table, name)}


def our_tables(catalogue: Sql) -> list[str]:
    return [
        row[0]
        for row in catalogue(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            f" WHERE n.nspname IN {OURS} AND c.relkind IN ('r', 'p') ORDER BY 1"
        )
    ]


@pytest.mark.parametrize("role", [*SERVICE_ROLES, "nexus_definer", "nexus_backup"])
def test_no_role_may_truncate_or_change_a_table(role: str, catalogue: Sql) -> None:
    for table in our_tables(catalogue):
        assert privileges(catalogue, role, table) <= {"SELECT", "INSERT", "UPDATE", "DELETE"}, table


@pytest.mark.parametrize("role", SERVICE_ROLES)
def test_no_login_role_writes_the_ledger_or_makes_queue_rows(role: str, catalogue: Sql) -> None:
    assert privileges(catalogue, role, "memory_system.ledger") <= {"SELECT"}
    assert privileges(catalogue, role, "memory_system.ledger_heads") <= {"SELECT"}
    assert not privileges(catalogue, role, "memory_system.embeddings_queue") & {"INSERT", "DELETE"}
    assert not privileges(catalogue, role, "memory_system.embedding_models") & {"INSERT", "UPDATE", "DELETE"}


def test_worker_writes_only_embedding_columns_of_memories(catalogue: Sql) -> None:
    writable = {
        (table, column)
        for table, column in catalogue(
            "SELECT c.oid::regclass::text, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
            " WHERE n.nspname IN ('nexus_memory', 'consciousness') AND c.relkind = 'r'"
            " AND has_column_privilege('nexus_worker', c.oid, a.attnum, 'UPDATE')"
        )
    }
    embedding = {"embedding", "embedding_version", "embedding_sha256"}
    assert writable == {
        *(("nexus_memory.zep_episodic_memory", column) for column in embedding),
        *(("nexus_memory.semantic_memories", column) for column in embedding),
        ("nexus_memory.working_memory_contexts", "cache_sha1"),
    }
    # The queue's identity and order of arrival are the trigger's.
    assert not catalogue.one("SELECT has_column_privilege('nexus_worker', 'memory_system.embeddings_queue', 'input_sha256', 'UPDATE')")


def test_service_cannot_write_what_it_must_not_forge(catalogue: Sql) -> None:
    forged = [
        column
        for column in ("episode_id", "seq", "agent_id", "version", "receipt_nonce", "embedding", "embedding_sha256", "idempotency_key")
        if catalogue.one("SELECT has_column_privilege('nexus_app', 'nexus_memory.zep_episodic_memory', %s, 'UPDATE')", column)
    ]
    assert forged == []
    given_by_the_database = ("seq", "version", "receipt_nonce", "embedding", "embedding_sha256", "created_at", "updated_at")
    for column in given_by_the_database:
        assert not catalogue.one("SELECT has_column_privilege('nexus_app', 'nexus_memory.zep_episodic_memory', %s, 'INSERT')", column), (
            column
        )
    assert "DELETE" not in privileges(catalogue, "nexus_app", "nexus_memory.zep_episodic_memory")
    assert privileges(catalogue, "nexus_app", "nexus_memory.episode_chunks") == {"SELECT"}
    assert privileges(catalogue, "nexus_app", "memory_system.embeddings_queue") == {"SELECT"}


def test_reader_only_reads_and_no_keys(catalogue: Sql) -> None:
    for table in our_tables(catalogue):
        assert privileges(catalogue, "nexus_ro", table) <= {"SELECT"}, table
    assert privileges(catalogue, "nexus_ro", "memory_system.api_keys") == set()
    assert privileges(catalogue, "nexus_worker", "memory_system.api_keys") == set()


def test_backup_reads_everything(catalogue: Sql) -> None:
    for table in our_tables(catalogue):
        if not table.endswith("alembic_version"):
            assert privileges(catalogue, "nexus_backup", table) == {"SELECT"}, table


def test_every_table_of_an_agents_data_is_row_secured(catalogue: Sql) -> None:
    tables = catalogue(
        "SELECT c.oid::regclass::text, c.relrowsecurity, c.relforcerowsecurity FROM pg_class c"
        f" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN {OURS} AND c.relkind IN ('r', 'p')"
        " AND EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'agent_id' AND NOT a.attisdropped)"
    )
    secured = {table: (enabled, forced) for table, enabled, forced in tables if table not in NOT_AN_AGENTS_DATA}
    assert len(secured) >= 9
    assert set(secured.values()) == {(True, True)}, secured
    for table in secured:
        policies = catalogue(
            "SELECT policyname, permissive, roles::text, cmd, qual, with_check FROM pg_policies WHERE schemaname || '.' || tablename = %s",
            table,
        )
        assert set(policies) == POLICIES, table


def test_no_view_reads_past_row_security(catalogue: Sql) -> None:
    query = f"SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN {OURS}"
    views = catalogue(f"{query} AND c.relkind IN ('v', 'm') AND NOT coalesce('security_invoker=true' = ANY (c.reloptions), false)")
    assert views == []
