"""Agents apart by PostgreSQL itself: every role, table and command, computed from the catalogue, so that a new table joins by itself."""

from collections.abc import Callable
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError

import app.db
from app.bootstrap import Services
from app.config import Role, Settings
from app.db import Database
from app.episodes.models import EpisodeFilters
from app.errors import NotFound
from app.search.query import SearchQuery
from tests.factories.episodes import delete, new_episode
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

ROLES: tuple[Role, ...] = ("nexus_app", "nexus_ro", "nexus_worker", "nexus_superuser")
AGENTS = ("alice", "bob")
EPISODES = {"alice": str(UUID(int=1)), "bob": str(UUID(int=2))}

_VECTOR = "array_fill(0.1, ARRAY[384])::real[]::public.vector"
ROWS: dict[str, str] = {
    "nexus_memory.projects": "(agent_id, name) VALUES (%(agent)s, %(unique)s)",
    "nexus_memory.zep_episodic_memory": "(agent_id, content) VALUES (%(agent)s, %(unique)s)",
    "nexus_memory.episode_chunks": (
        "(episode_id, model_id, chunk_no, agent_id, char_start, char_end, input_sha256, embedding, vector_sha256)"
        f" VALUES (%(episode)s, 1, %(number)s, %(agent)s, 0, 1, 'x', {_VECTOR}, 'x')"
    ),
    "nexus_memory.semantic_memories": "(agent_id, concept, definition) VALUES (%(agent)s, %(unique)s, 'd')",
    # One row a memory and model, so each attempt takes a model that the memory has no row of.
    "nexus_memory.semantic_vectors": (
        "(memory_id, model_id, agent_id, input_sha256, embedding, vector_sha256)"
        f" SELECT %(episode)s, m.model_id, %(agent)s, 'x', {_VECTOR}, 'x' FROM memory_system.embedding_models m WHERE NOT EXISTS"
        " (SELECT 1 FROM nexus_memory.semantic_vectors v WHERE v.memory_id = %(episode)s AND v.model_id = m.model_id) LIMIT 1"
    ),
    "nexus_memory.working_memory_contexts": "(agent_id, context_id, active_content) VALUES (%(agent)s, %(unique)s, '{}')",
    "memory_system.embeddings_queue": (
        "(target_kind, target_id, model_id, agent_id, input_sha256, input_chars)"
        " VALUES ('episodic', gen_random_uuid(), 1, %(agent)s, 'x', 1)"
    ),
    "memory_system.ledger": (
        "(episode_id, seq, agent_id, version, event, leaf) VALUES (gen_random_uuid(), 1, %(agent)s, 1, 'accepted', 'x')"
    ),
    # One row an agent and model, so each attempt takes a model that the agent has no row of.
    "memory_system.agent_models": (
        "(agent_id, model_id) SELECT %(agent)s, m.model_id FROM memory_system.embedding_models m WHERE NOT EXISTS"
        " (SELECT 1 FROM memory_system.agent_models a WHERE a.agent_id = %(agent)s AND a.model_id = m.model_id) LIMIT 1"
    ),
    "consciousness.memory_blocks": "(agent_id, label, value) VALUES (%(agent)s, %(unique)s, 'v')",
    "consciousness.consciousness_checkpoints": (
        "(agent_id, checkpoint_type, state_data, identity_hash) VALUES (%(agent)s, 't', '{}', repeat('0', 64))"
    ),
}
"""How to make a row of each table of an agent's data: a new table needs a line here, and then joins the matrix."""


def row_of(agent: str) -> dict[str, Any]:
    unique = uuid4()
    return {"agent": agent, "unique": unique.hex, "number": unique.int % 2_000_000_000, "episode": EPISODES[agent]}


def agent_tables(sql: Sql) -> list[str]:
    return [
        row[0]
        for row in sql(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'agent_id'"
            " WHERE c.relkind IN ('r', 'p') AND c.relnamespace::regnamespace::text IN ('nexus_memory', 'memory_system', 'consciousness')"
            " AND c.oid <> 'memory_system.api_keys'::regclass ORDER BY 1"
        )
    ]


def attempt(connection: Any, statement: str, parameters: dict[str, Any]) -> int | None:
    """Return how many rows a statement touched, or None when it was refused; its effect is undone."""
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT attempt")
        try:
            cursor.execute(statement, parameters)
            touched: int = cursor.rowcount
        except psycopg2.errors.InsufficientPrivilege:
            touched = -1
        cursor.execute("ROLLBACK TO SAVEPOINT attempt")
    return touched if touched >= 0 else None


class Matrix:
    """Tries every command on every table as every role, and compares with what isolation means."""

    def __init__(self, sql: Sql, login: Callable[[Role], Database]) -> None:
        self._sql = sql
        self._databases = {role: login(role) for role in ROLES}
        self.tables = agent_tables(sql)
        assert set(self.tables) == set(ROWS), "say in ROWS how a row of the new table is made"
        for agent in AGENTS:
            sql(
                "INSERT INTO nexus_memory.zep_episodic_memory (episode_id, agent_id, content) VALUES (%s, %s, 'seed')",
                EPISODES[agent],
                agent,
            )
            sql(
                "INSERT INTO nexus_memory.semantic_memories (memory_id, agent_id, concept, definition) VALUES (%s, %s, 'seed', 'd')",
                EPISODES[agent],
                agent,
            )
        sql("INSERT INTO memory_system.embedding_models (model_id, name, version, dimensions, fingerprint) VALUES (2, 'b', 'b@1', 8, 'f')")
        for agent in AGENTS:
            for table in self.tables:
                with sql.connection.cursor() as cursor:
                    cursor.execute(f"INSERT INTO {table} {ROWS[table]}", row_of(agent))
        self.held = {
            (table, agent): sql.one(f"SELECT count(*) FROM {table} WHERE agent_id = %s", agent) for table in self.tables for agent in AGENTS
        }
        assert min(self.held.values()) > 0

    def check(self) -> int:
        """Raise AssertionError at the first hole; return how many cells were tried."""
        cells = 0
        for role in ROLES:
            for context in ("alice", None, ""):
                connection: Any = self._databases[role].engine.raw_connection()
                try:
                    if context is not None:
                        with connection.cursor() as cursor:
                            cursor.execute("SELECT set_config('app.current_agent_id', %s, true)", (context,))
                    for table, target in product(self.tables, AGENTS):
                        cells += self._check_cell(connection, role, context, table, target)
                finally:
                    connection.rollback()
                    connection.close()
        return cells

    def _check_cell(self, connection: Any, role: Role, context: str | None, table: str, target: str) -> int:
        sees = role == "nexus_worker" or (role in ("nexus_app", "nexus_ro") and context == target)
        where = f"{role} as {context!r} on {table} of {target}"
        held = self.held[table, target] if sees else 0
        for command, statement in self._statements(role, table):
            granted = statement is not None
            found = attempt(connection, statement or self._denied(command, table), {**row_of(target), "target": target})
            touched = (1 if sees else None) if command == "insert" else held
            expected = touched if granted else None
            assert found == expected, f"{where}: {command} touched {found}, expected {expected}"
        return 4

    def _statements(self, role: Role, table: str) -> list[tuple[str, str | None]]:
        """Return each command as a statement, or None when the role has no grant for it."""

        def may(privilege: str) -> bool:
            return bool(self._sql.one("SELECT has_table_privilege(%s, %s, %s)", role, table, privilege))

        updatable = self._sql(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
            " AND attidentity = '' AND has_column_privilege(%s, attrelid, attnum, 'UPDATE') ORDER BY attnum",
            table,
            role,
        )
        # By column, as some grants are: a row of ROWS names only columns that a client may give.
        may_insert = self._sql.one("SELECT has_any_column_privilege(%s, %s, 'INSERT')", role, table)
        condition = "WHERE agent_id = %(target)s"
        reads = may("SELECT")
        return [
            ("select", f"SELECT 1 FROM {table} {condition}" if reads else None),
            ("update", f'UPDATE {table} SET "{updatable[0][0]}" = "{updatable[0][0]}" {condition}' if updatable and reads else None),
            ("delete", f"DELETE FROM {table} {condition}" if may("DELETE") and reads else None),
            ("insert", f"INSERT INTO {table} {ROWS[table]}" if may_insert else None),
        ]

    @staticmethod
    def _denied(command: str, table: str) -> str:
        return {
            "select": f"SELECT 1 FROM {table}",
            "update": f"UPDATE {table} SET agent_id = agent_id",
            "delete": f"DELETE FROM {table}",
            "insert": f"INSERT INTO {table} {ROWS[table]}",
        }[command]


@pytest.fixture
def matrix(sql: Sql, login: Callable[[Role], Database]) -> Matrix:
    return Matrix(sql, login)


def test_nobody_touches_rows_of_another_agent(matrix: Matrix) -> None:
    assert matrix.check() == len(ROLES) * 3 * len(ROWS) * 2 * 4


@pytest.mark.parametrize(
    "mutation",
    [
        "ALTER TABLE nexus_memory.zep_episodic_memory DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE memory_system.ledger NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY worker_access ON nexus_memory.episode_chunks",
        "ALTER POLICY agent_isolation ON nexus_memory.projects USING (true)",
        "ALTER POLICY agent_isolation ON nexus_memory.semantic_memories WITH CHECK (true)",
        "ALTER POLICY agent_isolation ON consciousness.memory_blocks"
        " USING (coalesce(current_setting('app.current_agent_id', true), '') IN ('', agent_id))",
    ],
)
def test_mutant_of_the_policies_is_found(mutation: str, matrix: Matrix, sql: Sql) -> None:
    sql(mutation)
    with pytest.raises(AssertionError, match="touched"):
        matrix.check()


def carries_over(database_settings: Settings) -> None:
    """One pooled connection serves one agent after another, and after a failure, and nobody."""
    database = Database(database_settings.model_copy(update={"database_pool_size": 1}), "nexus_app", "tests")
    count = text("SELECT count(*) FROM nexus_memory.zep_episodic_memory")
    insert = text("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES (:agent, 'mine')")
    try:
        with database.transaction("alice") as connection:
            connection.execute(insert, {"agent": "alice"})
            assert connection.execute(count).scalar_one() == 1
        with database.transaction("bob") as connection:
            assert connection.execute(count).scalar_one() == 0
        with pytest.raises(ProgrammingError), database.transaction("alice") as connection:
            connection.execute(insert, {"agent": "bob"})
        with database.transaction("alice"):
            pass
        with database.transaction() as connection:
            assert connection.execute(count).scalar_one() == 0, "the agent stayed on the connection"
            assert connection.execute(text("SELECT current_setting('app.current_agent_id', true)")).scalar_one() in (None, "")
    finally:
        database.close()


def test_pooled_connection_carries_no_agent_over(database_settings: Settings) -> None:
    carries_over(database_settings)


def test_mutant_that_sets_the_agent_for_the_session_carries_it_over(database_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.db, "_SET_AGENT", text(app.db._SET_AGENT.text.replace("SET LOCAL", "SET")))
    with pytest.raises(AssertionError, match="stayed on the connection"):
        carries_over(database_settings)


def test_processes_log_in_as_their_own_weak_role(services: Services, worker_database: Database) -> None:
    for database, role in ((services.database, "nexus_app"), (worker_database, "nexus_worker")):
        with database.transaction() as connection:
            row = connection.execute(
                text("SELECT current_user, session_user, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
            ).one()
        assert tuple(row) == (role, role, False, False)


AGENT_FUNCTIONS = {
    "memory_system.current_agent()": "SELECT memory_system.current_agent()",
    "search_by_words": "SELECT * FROM nexus_memory.search_by_words('seed', 10, '{}')",
    "search_by_vector": f"SELECT * FROM nexus_memory.search_by_vector({_VECTOR}, 1::smallint, 10, '{{}}')",
    "cosine_of": f"SELECT * FROM nexus_memory.cosine_of(ARRAY[gen_random_uuid()], {_VECTOR}, 1::smallint)",
    "turns_of": "SELECT * FROM nexus_memory.turns_of(ARRAY[gen_random_uuid()])",
    "record_edit": "SELECT memory_system.record_edit(gen_random_uuid())",
    "note_attributes": "SELECT memory_system.note_attributes(gen_random_uuid())",
    "attributes_are_noted": "SELECT memory_system.attributes_are_noted(gen_random_uuid())",
    "delete_episode": "SELECT * FROM memory_system.delete_episode(gen_random_uuid())",
    "list_episodes": "SELECT * FROM nexus_memory.list_episodes('{}', true, NULL, NULL, 10)",
    "forget_episodes": "SELECT memory_system.forget_episodes(10)",
    "forget_others": "SELECT * FROM memory_system.forget_others(10)",
    "agent_rows": "SELECT * FROM memory_system.agent_rows()",
    "known_episodes": "SELECT * FROM memory_system.known_episodes(ARRAY[gen_random_uuid()])",
    "search_working": "SELECT * FROM nexus_memory.search_working('seed', 10)",
    "search_semantic_by_vector": f"SELECT * FROM nexus_memory.search_semantic_by_vector({_VECTOR}, 1::smallint, 10)",
    "search_semantic_by_words": "SELECT * FROM nexus_memory.search_semantic_by_words('seed', 10)",
}


def test_every_function_of_an_agent_is_tried(catalogue: Sql) -> None:
    found = catalogue("SELECT proname FROM pg_proc WHERE prosecdef AND prosrc LIKE '%%memory_system.current_agent()%%'")
    assert {row[0] for row in found} == AGENT_FUNCTIONS.keys() - {"memory_system.current_agent()"}


@pytest.mark.parametrize("function", sorted(AGENT_FUNCTIONS))
@pytest.mark.parametrize("agent_id", [None, ""])
def test_functions_of_an_agent_fail_when_none_is_set(function: str, agent_id: str | None, app_database: Database) -> None:
    with pytest.raises(DBAPIError, match=r"app\.current_agent_id is not set"), app_database.transaction(agent_id) as connection:
        connection.exec_driver_sql(AGENT_FUNCTIONS[function])


def test_forged_ids_reach_nothing_of_another_agent(services: Services, workshop: Workshop, sql: Sql) -> None:
    theirs = services.episodes.store("bob", new_episode("the safe combination", project="vault", tags=("secret",))).episode_id
    services.episodes.store("alice", new_episode("my own diary"))
    workshop.drain()
    with pytest.raises(NotFound):
        services.episodes.get("alice", theirs)
    assert not delete(services.database, "alice", theirs)
    with services.database.transaction("alice") as connection:
        assert connection.execute(text("SELECT memory_system.record_edit(:id)"), {"id": theirs}).scalar_one() is False
        assert connection.execute(text("SELECT memory_system.note_attributes(:id)"), {"id": theirs}).scalar_one() is False
        cosine = text("SELECT count(*) FROM nexus_memory.cosine_of(ARRAY[CAST(:id AS uuid)], CAST(:v AS public.vector), 1::smallint)")
        vector = str([0.1] * 384)
        assert connection.execute(cosine, {"id": theirs, "v": vector}).scalar_one() == 0
    for mode in ("hybrid", "vector", "keyword"):
        hits = services.search.search("alice", SearchQuery("the safe combination", mode=mode)).results
        assert {hit.agent_id for hit in hits} <= {"alice"}
    filtered = SearchQuery("safe", filters=EpisodeFilters(project="vault"))
    assert services.search.search("alice", filtered).results == []
    assert services.episodes.recent("alice", 10)[0].agent_id == "alice"
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory WHERE agent_id = 'bob'") == 1


def test_counts_see_every_agent_while_none_is_set(services: Services, workshop: Workshop) -> None:
    """Row security must not make the monitoring of an unhappy system look like an empty one."""
    for agent in AGENTS:
        services.episodes.store(agent, new_episode())
    assert services.stats.stats(None)["episodes"] == 2
    assert services.stats.stats(None)["embeddings_queue"]["pending"] == 2
    assert services.stats.queue().pending == 2
    assert services.integrity.identity().accepted == 2
    assert services.health.report().components["queue"]["detail"].startswith("2 pending")
    assert services.stats.stats("alice")["episodes"] == 1
    assert services.stats.stats("alice")["embeddings_queue"]["pending"] == 1
    assert services.integrity.identity("bob").accepted == 1


def test_temporary_tables_cannot_forge_queue_rows(login: Callable[[Role], Database]) -> None:
    for role in ("nexus_app", "nexus_worker", "nexus_ro"):
        with pytest.raises(ProgrammingError, match="permission denied"), login(role).transaction() as connection:
            connection.exec_driver_sql("CREATE TEMP TABLE forged (LIKE nexus_memory.zep_episodic_memory)")


def test_error_of_the_database_does_not_repeat_what_was_stored(services: Services) -> None:
    with pytest.raises(ProgrammingError) as raised, services.database.transaction("alice") as connection:
        connection.execute(
            text("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES ('bob', :content)"), {"content": "top secret"}
        )
    assert "top secret" not in str(raised.value)


def test_backup_role_reads_every_agent(servers: TestServers, sql: Sql, services: Services) -> None:
    for agent in AGENTS:
        services.episodes.store(agent, new_episode())
    sql("SET ROLE nexus_backup")
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory") == 2
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        sql("DELETE FROM nexus_memory.zep_episodic_memory")
    sql("RESET ROLE")
