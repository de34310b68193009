"""The table of comparisons of the vector index with an exact scan."""

from sqlalchemy import BigInteger, Column, Double, ForeignKeyConstraint, Identity, Integer, PrimaryKeyConstraint, SmallInteger, Table

from app.schema import NOW, TimestampTz, metadata

recall_checks = Table(
    "recall_checks",
    metadata,
    Column("check_id", BigInteger, Identity(always=True), nullable=False),
    Column("model_id", SmallInteger, nullable=False),
    Column("checked_at", TimestampTz, nullable=False, server_default=NOW),
    Column("samples", Integer, nullable=False),
    Column("recall", Double, nullable=False),
    Column("worst", Double, nullable=False),
    PrimaryKeyConstraint("check_id", name="pk_recall_checks"),
    ForeignKeyConstraint(["model_id"], ["memory_system.embedding_models.model_id"], name="fk_recall_checks_model"),
    schema="memory_system",
)
