"""The table of working memory."""

from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR

from app.schema import NOW, TimestampTz, metadata

working_memory_contexts = Table(
    "working_memory_contexts",
    metadata,
    Column("agent_id", Text, nullable=False),
    Column("context_id", Text, nullable=False),
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("session_id", Text),
    Column("context_type", Text, nullable=False, server_default=sql("'general'::text")),
    Column("active_content", JSONB, nullable=False),
    Column("priority", Text, nullable=False, server_default=sql("'normal'::text")),
    Column("ttl_seconds", Integer),
    Column("expires_at", TimestampTz),
    Column("cache_sha1", LargeBinary),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    Column("updated_at", TimestampTz, nullable=False, server_default=NOW),
    Column(
        "search_vector",
        TSVECTOR,
        Computed("nexus_memory.episode_search_vector('en', NULL, active_content::text)", persisted=True),
        nullable=False,
    ),
    PrimaryKeyConstraint("agent_id", "context_id", name="pk_working_memory_contexts"),
    UniqueConstraint("seq", name="uq_working_memory_contexts_seq"),
    schema="nexus_memory",
)
Index(
    "ix_working_memory_contexts_expires_at",
    working_memory_contexts.c.expires_at,
    postgresql_where=working_memory_contexts.c.expires_at.isnot(None),
)
Index("ix_working_memory_contexts_search_vector", working_memory_contexts.c.search_vector, postgresql_using="gin")
Index("ix_working_memory_contexts_agent_id_seq", working_memory_contexts.c.agent_id, working_memory_contexts.c.seq)
