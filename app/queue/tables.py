"""The tables of the queue, of who works on it, of what became of its rows, and of beat's ticks."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY

from app.schema import NOW, TimestampTz, metadata

embeddings_queue = Table(
    "embeddings_queue",
    metadata,
    Column("target_kind", Text, nullable=False),
    Column("target_id", Uuid, nullable=False),
    Column("model_id", SmallInteger, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("generation", BigInteger, nullable=False, server_default=sql("1")),
    Column("input_sha256", LargeBinary, nullable=False),
    Column("input_chars", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default=sql("'pending'::text")),
    Column("priority", SmallInteger, nullable=False, server_default=sql("2")),
    Column("due_at", TimestampTz, nullable=False, server_default=NOW),
    Column("claim_token", Uuid),
    Column("started_at", TimestampTz),
    Column("lease_until", TimestampTz),
    Column("retry_count", SmallInteger, nullable=False, server_default=sql("0")),
    Column("solo", Boolean, nullable=False, server_default=sql("false")),
    Column("last_error", Text),
    Column("traceparent", Text),
    Column("enqueued_at", TimestampTz, nullable=False, server_default=NOW),
    Column("processed_at", TimestampTz),
    Column("claimed_at", TimestampTz),
    PrimaryKeyConstraint("target_kind", "target_id", "model_id", name="pk_embeddings_queue"),
    ForeignKeyConstraint(["model_id"], ["memory_system.embedding_models.model_id"], name="fk_embeddings_queue_model"),
    schema="memory_system",
)
_c = embeddings_queue.c
Index("ix_embeddings_queue_ready", _c.priority, _c.due_at, _c.target_id, postgresql_where=_c.state == "pending")
Index("ix_embeddings_queue_processing", _c.claimed_at, postgresql_where=_c.state == "processing")
Index("ix_embeddings_queue_dead", _c.last_error, _c.target_id, postgresql_where=_c.state == "dead")
Index("ix_embeddings_queue_open", _c.agent_id, postgresql_where=_c.state.in_(["pending", "processing"]))
Index("ix_embeddings_queue_oldest", _c.enqueued_at, postgresql_where=_c.state == "pending")

workers = Table(
    "workers",
    metadata,
    Column("worker_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("hostname", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("slots", Integer, nullable=False, server_default=sql("0")),
    Column("model_id", SmallInteger),
    Column("precision", Text),
    Column("items_per_second", Double),
    Column("started_at", TimestampTz, nullable=False, server_default=NOW),
    Column("heartbeat_at", TimestampTz, nullable=False, server_default=NOW),
    Column("problem", Text),
    Column("chars_per_second", Double),
    PrimaryKeyConstraint("worker_id", name="pk_workers"),
    ForeignKeyConstraint(["model_id"], ["memory_system.embedding_models.model_id"], name="fk_workers_model"),
    schema="memory_system",
)

beat_ticks = Table(
    "beat_ticks",
    metadata,
    Column("task", Text, nullable=False),
    Column("slot", TimestampTz, nullable=False),
    Column("ran_at", TimestampTz, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("task", "slot", name="pk_beat_ticks"),
    schema="memory_system",
)

done_tallies = Table(
    "done_tallies",
    metadata,
    Column("tally_id", BigInteger, Identity(always=True), nullable=False),
    Column("target_kind", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("processing_counts", ARRAY(BigInteger), nullable=False),
    Column("processing_seconds", Double, nullable=False),
    Column("searchable_counts", ARRAY(BigInteger), nullable=False),
    Column("searchable_seconds", Double, nullable=False),
    PrimaryKeyConstraint("tally_id", name="pk_done_tallies"),
    schema="memory_system",
)

dead_tallies = Table(
    "dead_tallies",
    metadata,
    Column("tally_id", BigInteger, Identity(always=True), nullable=False),
    Column("cause", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    PrimaryKeyConstraint("tally_id", name="pk_dead_tallies"),
    schema="memory_system",
)
