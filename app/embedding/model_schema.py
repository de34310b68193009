"""What a model changes in the schema: its vector indexes, and the length of the one-vector copies."""

from sqlalchemy import Connection, text
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from app.db import Database
from app.errors import DatabaseUnavailable

_LONGEST_READER_SECONDS = 300

_COLUMN_TYPE = text(
    "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attname = 'embedding'"
)


def make_index(owner: Database, model_id: int, dimensions: int) -> None:
    """Make the model's vector indexes; concurrently, so that workers go on writing vectors of the other."""
    for table in ("episode_chunks", "semantic_vectors"):
        _make_index_of(owner, table, model_id, dimensions)


def _make_index_of(owner: Database, table: str, model_id: int, dimensions: int) -> None:
    name = f"ix_{table}_embedding_model_{int(model_id)}"
    with owner.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        valid = connection.execute(
            text("SELECT i.indisvalid FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid WHERE c.relname = :name"), {"name": name}
        ).scalar_one_or_none()
        if valid:
            return
        if valid is False:  # A run was killed while it made it.
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY nexus_memory.{name}")
        connection.exec_driver_sql(
            f"CREATE INDEX CONCURRENTLY {name} ON nexus_memory.{table}"
            f" USING hnsw ((embedding::public.vector({int(dimensions)})) public.vector_cosine_ops) WITH (m = 16, ef_construction = 64)"
            f" WHERE model_id = {int(model_id)}"
        )


def fit_columns(owner: Database, dimensions: int) -> None:
    """Let the columns of the one-vector copies take vectors of another length.

    Each table in a transaction of its own: a search locks both, in the order of its own statements, and whoever locked both here could
    wait for a search that waits for him.

    Raises:
        DatabaseUnavailable: For minutes somebody read a table without a pause.
    """
    for table in ("nexus_memory.zep_episodic_memory", "nexus_memory.semantic_memories"):
        _fit_column(owner, table, dimensions)


@retry(retry=retry_if_exception_type(DatabaseUnavailable), stop=stop_after_delay(_LONGEST_READER_SECONDS), wait=wait_fixed(1), reraise=True)
def _fit_column(owner: Database, table: str, dimensions: int) -> None:
    with owner.transaction() as connection:
        if _column_type(connection, table) not in ("vector", f"vector({dimensions})"):
            # A long reader in the way must not make every other reader wait behind this.
            connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
            # Without a length, so that the table need not be rewritten; every writer proves the model's length.
            connection.exec_driver_sql(f"ALTER TABLE {table} ALTER COLUMN embedding TYPE public.vector")


def _column_type(connection: Connection, table: str) -> str:
    return str(connection.execute(_COLUMN_TYPE, {"table": table}).scalar_one())
