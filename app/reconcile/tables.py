"""The table of reconciliation runs."""

from sqlalchemy import BigInteger, Boolean, Column, PrimaryKeyConstraint, Table, Text, Uuid
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB

from app.schema import EMPTY_OBJECT, NEW_UUID, NOW, TimestampTz, metadata

reconciliation_runs = Table(
    "reconciliation_runs",
    metadata,
    Column("run_id", Uuid, nullable=False, server_default=NEW_UUID),
    Column("kind", Text, nullable=False),
    Column("started_at", TimestampTz, nullable=False, server_default=NOW),
    Column("finished_at", TimestampTz),
    Column("dry_run", Boolean, nullable=False, server_default=sql("false")),
    Column("ranges_compared", BigInteger, nullable=False, server_default=sql("0")),
    Column("ranges_different", BigInteger, nullable=False, server_default=sql("0")),
    Column("found", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("repaired", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("error", Text),
    PrimaryKeyConstraint("run_id", name="pk_reconciliation_runs"),
    schema="memory_system",
)
