"""The tables of memory blocks and checkpoints, and the two that a later phase fills."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB

from app.schema import EMPTY_OBJECT, NEW_UUID, NOW, TimestampTz, metadata

memory_blocks = Table(
    "memory_blocks",
    metadata,
    Column("block_id", Uuid, nullable=False, server_default=NEW_UUID),
    Column("agent_id", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("read_only", Boolean, nullable=False, server_default=sql("false")),
    Column("version", Integer, nullable=False, server_default=sql("1")),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    Column("updated_at", TimestampTz, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("block_id", name="pk_memory_blocks"),
    UniqueConstraint("agent_id", "label", name="uq_memory_blocks_agent_id_label"),
    schema="consciousness",
)

consciousness_checkpoints = Table(
    "consciousness_checkpoints",
    metadata,
    Column("checkpoint_id", Uuid, nullable=False, server_default=NEW_UUID),
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("checkpoint_type", Text, nullable=False),
    Column("state_data", JSONB, nullable=False),
    Column("identity_hash", Text, nullable=False),
    Column("continuity_score", Double, nullable=False, server_default=sql("1.0")),
    Column("metadata", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    Column("blocks", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    PrimaryKeyConstraint("checkpoint_id", name="pk_consciousness_checkpoints"),
    UniqueConstraint("seq", name="uq_consciousness_checkpoints_seq"),
    schema="consciousness",
)
Index(
    "ix_consciousness_checkpoints_agent_id_seq",
    consciousness_checkpoints.c.agent_id,
    consciousness_checkpoints.c.seq.desc(),
)

distributed_consensus = Table(
    "distributed_consensus",
    metadata,
    Column("consensus_id", Uuid, nullable=False, server_default=NEW_UUID),
    Column("term", BigInteger, nullable=False, server_default=sql("0")),
    Column("leader_instance", Text),
    Column("decision", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("created_at", TimestampTz, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("consensus_id", name="pk_distributed_consensus"),
    schema="consciousness",
)

instance_network = Table(
    "instance_network",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=sql("'unknown'::text")),
    Column("last_seen_at", TimestampTz),
    PrimaryKeyConstraint("instance_id", name="pk_instance_network"),
    schema="consciousness",
)
