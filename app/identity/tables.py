"""The tables of API keys and of the audit log."""

from sqlalchemy import BigInteger, Column, Identity, Index, Integer, LargeBinary, PrimaryKeyConstraint, Table, Text, UniqueConstraint, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from app.schema import EMPTY_OBJECT, NEW_UUID, NOW, TimestampTz, metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Uuid, nullable=False, server_default=NEW_UUID),
    Column("key_sha256", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("agent_id", Text),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    Column("expires_at", TimestampTz),
    Column("revoked_at", TimestampTz),
    Column("last_used_at", TimestampTz),
    Column("rate_limit_per_minute", Integer),
    PrimaryKeyConstraint("key_id", name="pk_api_keys"),
    UniqueConstraint("key_sha256", name="uq_api_keys_key_sha256"),
    schema="memory_system",
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("audit_id", BigInteger, Identity(always=True), nullable=False),
    Column("at", TimestampTz, nullable=False, server_default=NOW),
    Column("key_id", Uuid),
    Column("action", Text, nullable=False),
    Column("subject", Text),
    Column("details", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    PrimaryKeyConstraint("audit_id", name="pk_audit_log"),
    schema="memory_system",
)
Index("ix_audit_log_at", audit_log.c.at)
