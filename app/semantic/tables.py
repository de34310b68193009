"""The table of semantic memories."""

from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

from app.schema import EMPTY_OBJECT, NEW_UUID, NOW, TimestampTz, metadata

semantic_memories = Table(
    "semantic_memories",
    metadata,
    Column("memory_id", Uuid, nullable=False, server_default=NEW_UUID),
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("concept", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("relationships", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("confidence_score", Double, nullable=False, server_default=sql("0.5")),
    Column("source_episodes", ARRAY(Uuid), nullable=False, server_default=sql("'{}'::uuid[]")),
    Column("language", Text, nullable=False, server_default=sql("'en'::text")),
    Column("version", Integer, nullable=False, server_default=sql("1")),
    Column("input_sha256", LargeBinary, Computed("nexus_memory.encoder_input_sha256(concept, definition)", persisted=True), nullable=False),
    Column("embedding", Vector(384)),
    Column("embedding_version", Text),
    Column("embedding_sha256", LargeBinary),
    Column(
        "search_vector",
        TSVECTOR,
        Computed("nexus_memory.episode_search_vector(language, concept, definition)", persisted=True),
        nullable=False,
    ),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    Column("updated_at", TimestampTz, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("memory_id", name="pk_semantic_memories"),
    UniqueConstraint("seq", name="uq_semantic_memories_seq"),
    schema="nexus_memory",
)
Index("ix_semantic_memories_agent_id_seq", semantic_memories.c.agent_id, semantic_memories.c.seq)
Index("ix_semantic_memories_search_vector", semantic_memories.c.search_vector, postgresql_using="gin")
