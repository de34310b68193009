"""The tables of the ledger and its sealed ranges."""

from sqlalchemy import BigInteger, Column, Identity, Index, Integer, LargeBinary, PrimaryKeyConstraint, Table, Text, Uuid
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from app.schema import NOW, TimestampTz, metadata


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id, which SQLAlchemy has no type for."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Return the SQL name of the type."""
        return "xid8"


# Reflection looks types up by name here; without this entry `alembic check` would not know the column's type.
ischema_names["xid8"] = Xid8

ledger = Table(
    "ledger",
    metadata,
    Column("ledger_seq", BigInteger, Identity(always=True), nullable=False),
    Column("episode_id", Uuid, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("event", Text, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("content_sha256", LargeBinary),
    Column("nonce", Uuid),
    Column("idempotency_key_sha256", LargeBinary),
    Column("xact_id", Xid8(), nullable=False, server_default=sql("pg_current_xact_id()")),
    Column("at", TimestampTz, nullable=False, server_default=NOW),
    Column("attributes_sha256", LargeBinary),
    PrimaryKeyConstraint("ledger_seq", name="pk_ledger"),
    schema="memory_system",
)
Index("ix_ledger_episode_id", ledger.c.episode_id, ledger.c.version)
Index("ix_ledger_agent_id_seq", ledger.c.agent_id, ledger.c.seq)
Index(
    "ix_ledger_tombstone",
    ledger.c.agent_id,
    ledger.c.idempotency_key_sha256,
    postgresql_where=sql("event = 'deleted' AND idempotency_key_sha256 IS NOT NULL"),
)
Index("ix_ledger_deleted", ledger.c.ledger_seq, postgresql_where=ledger.c.event == "deleted")

ledger_heads = Table(
    "ledger_heads",
    metadata,
    Column("range_no", BigInteger, nullable=False, autoincrement=False),
    Column("first_ledger_seq", BigInteger, nullable=False),
    Column("last_ledger_seq", BigInteger, nullable=False),
    Column("void_count", Integer, nullable=False, server_default=sql("0")),
    Column("merkle_root", LargeBinary, nullable=False),
    Column("previous_sha256", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("sealed_at", TimestampTz, nullable=False, server_default=NOW),
    Column("tree_root", LargeBinary, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    PrimaryKeyConstraint("range_no", name="pk_ledger_heads"),
    schema="memory_system",
)
