"""The tables of embedding models and chunk vectors."""

from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    Boolean,
    Column,
    Computed,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    cast,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import BIT

from app.schema import NOW, TimestampTz, metadata

embedding_models = Table(
    "embedding_models",
    metadata,
    Column("model_id", SmallInteger, nullable=False, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("is_active", Boolean, nullable=False, server_default=sql("false")),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    Column("source", Text, nullable=False, server_default=sql("''::text")),
    Column("is_target", Boolean, nullable=False, server_default=sql("false")),
    Column("activated_at", TimestampTz),
    PrimaryKeyConstraint("model_id", name="pk_embedding_models"),
    UniqueConstraint("version", name="uq_embedding_models_version"),
    schema="memory_system",
)
Index("uq_embedding_models_is_active", embedding_models.c.is_active, unique=True, postgresql_where=embedding_models.c.is_active)
Index("uq_embedding_models_is_target", embedding_models.c.is_target, unique=True, postgresql_where=embedding_models.c.is_target)

agent_models = Table(
    "agent_models",
    metadata,
    Column("agent_id", Text, nullable=False),
    Column("model_id", SmallInteger, nullable=False),
    Column("completed_at", TimestampTz, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("agent_id", "model_id", name="pk_agent_models"),
    ForeignKeyConstraint(["model_id"], ["memory_system.embedding_models.model_id"], name="fk_agent_models_model", ondelete="CASCADE"),
    schema="memory_system",
)

episode_chunks = Table(
    "episode_chunks",
    metadata,
    Column("episode_id", Uuid, nullable=False),
    Column("model_id", SmallInteger, nullable=False),
    Column("chunk_no", Integer, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("char_start", Integer, nullable=False),
    Column("char_end", Integer, nullable=False),
    Column("input_sha256", LargeBinary, nullable=False),
    Column("embedding", Vector, nullable=False),
    Column("vector_sha256", LargeBinary, nullable=False),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    Column("signs", BIT(varying=True), Computed("public.binary_quantize(embedding)", persisted=True), nullable=False),
    PrimaryKeyConstraint("episode_id", "model_id", "chunk_no", name="pk_episode_chunks"),
    ForeignKeyConstraint(
        ["episode_id"], ["nexus_memory.zep_episodic_memory.episode_id"], name="fk_episode_chunks_episode", ondelete="CASCADE"
    ),
    ForeignKeyConstraint(["model_id"], ["memory_system.embedding_models.model_id"], name="fk_episode_chunks_model"),
    schema="nexus_memory",
)
Index(
    "ix_episode_chunks_signs",
    episode_chunks.c.agent_id,
    episode_chunks.c.model_id,
    postgresql_include=["signs", "episode_id", "chunk_no"],
)
Index("ix_episode_chunks_input", episode_chunks.c.agent_id, episode_chunks.c.model_id, episode_chunks.c.input_sha256)

semantic_vectors = Table(
    "semantic_vectors",
    metadata,
    Column("memory_id", Uuid, nullable=False),
    Column("model_id", SmallInteger, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("input_sha256", LargeBinary, nullable=False),
    Column("embedding", Vector, nullable=False),
    Column("vector_sha256", LargeBinary, nullable=False),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("memory_id", "model_id", name="pk_semantic_vectors"),
    ForeignKeyConstraint(
        ["memory_id"], ["nexus_memory.semantic_memories.memory_id"], name="fk_semantic_vectors_memory", ondelete="CASCADE"
    ),
    ForeignKeyConstraint(["model_id"], ["memory_system.embedding_models.model_id"], name="fk_semantic_vectors_model"),
    schema="nexus_memory",
)
Index("ix_semantic_vectors_agent", semantic_vectors.c.agent_id, semantic_vectors.c.model_id)
# One HNSW index a model and table, made by the revision or the migration that brings the model: partial, and over an expression,
# because the column holds vectors of any dimension.
for _table in (episode_chunks, semantic_vectors):
    Index(
        f"ix_{_table.name}_embedding_model_1",
        cast(_table.c.embedding, Vector(384)).label("embedding_384"),
        postgresql_using="hnsw",
        postgresql_with={"m": 16, "ef_construction": 64},
        postgresql_ops={"embedding_384": "vector_cosine_ops"},
        postgresql_where=_table.c.model_id == 1,
    )
