"""The tables of episodes and projects."""

from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    Double,
    ForeignKeyConstraint,
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

projects = Table(
    "projects",
    metadata,
    Column("project_id", Uuid, nullable=False, server_default=NEW_UUID),
    Column("agent_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("project_id", name="pk_projects"),
    UniqueConstraint("agent_id", "name", name="uq_projects_agent_id_name"),
    UniqueConstraint("agent_id", "project_id", name="uq_projects_agent_id_project_id"),
    schema="nexus_memory",
)

episodes = Table(
    "zep_episodic_memory",
    metadata,
    Column("episode_id", Uuid, nullable=False, server_default=NEW_UUID),
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("session_id", Text),
    Column("actor", Text),
    Column("action_type", Text, nullable=False, server_default=sql("'note'::text")),
    Column("content", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default=sql("1")),
    Column("content_sha256", LargeBinary, Computed("nexus_memory.content_sha256(content)", persisted=True), nullable=False),
    Column("receipt_nonce", Uuid, nullable=False, server_default=NEW_UUID),
    Column("timestamp", TimestampTz, nullable=False, server_default=NOW),
    Column("importance_score", Double, nullable=False, server_default=sql("0.5")),
    Column("tags", ARRAY(Text), nullable=False, server_default=sql("'{}'::text[]")),
    Column("metadata", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("action_details", JSONB),
    Column("context_state", JSONB),
    Column("project_id", Uuid),
    Column("language", Text, nullable=False, server_default=sql("'en'::text")),
    Column("idempotency_key", Text),
    Column("request_sha256", LargeBinary),
    Column("input_sha256", LargeBinary, Computed("nexus_memory.encoder_input_sha256(actor, content)", persisted=True), nullable=False),
    Column("embedding", Vector(384)),
    Column("embedding_version", Text),
    Column("embedding_sha256", LargeBinary),
    Column(
        "search_vector",
        TSVECTOR,
        Computed("nexus_memory.episode_search_vector(language, actor, content)", persisted=True),
        nullable=False,
    ),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    Column("updated_at", TimestampTz, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("episode_id", name="pk_zep_episodic_memory"),
    UniqueConstraint("seq", name="uq_zep_episodic_memory_seq"),
    UniqueConstraint("agent_id", "idempotency_key", name="uq_zep_episodic_memory_agent_id_idempotency_key"),
    ForeignKeyConstraint(
        ["agent_id", "project_id"],
        ["nexus_memory.projects.agent_id", "nexus_memory.projects.project_id"],
        name="fk_zep_episodic_memory_project",
        ondelete="SET NULL (project_id)",
    ),
    schema="nexus_memory",
)
Index("ix_zep_episodic_memory_agent_id_timestamp", episodes.c.agent_id, episodes.c.timestamp.desc(), episodes.c.seq.desc())
Index("ix_zep_episodic_memory_agent_id_seq", episodes.c.agent_id, episodes.c.seq)
Index(
    "ix_zep_episodic_memory_session",
    episodes.c.agent_id,
    episodes.c.session_id,
    episodes.c.timestamp,
    episodes.c.seq,
    postgresql_where=episodes.c.session_id.isnot(None),
)
Index(
    "ix_zep_episodic_memory_agent_id_project_id",
    episodes.c.agent_id,
    episodes.c.project_id,
    postgresql_where=episodes.c.project_id.isnot(None),
)
Index("ix_zep_episodic_memory_search_vector", episodes.c.search_vector, postgresql_using="gin")
Index("ix_zep_episodic_memory_tags", episodes.c.tags, postgresql_using="gin")
Index(
    "ix_zep_episodic_memory_metadata",
    episodes.c.metadata,
    postgresql_using="gin",
    postgresql_ops={"metadata": "jsonb_path_ops"},
)
