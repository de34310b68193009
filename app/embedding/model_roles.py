"""Which model is active and which may become so: what the owner of the tables writes into the table of models."""

import time

from sqlalchemy import text

from app.db import Database
from app.embedding.breaker import Breaker
from app.embedding.encoder import Encoder
from app.embedding.model_schema import fit_columns
from app.embedding.models import EmbeddingModel
from app.errors import ConfigurationError, Conflict

_POOLING = "chunked@v3"
"""How vectors of chunks become one; part of a model's version."""

_ADD = text(
    "INSERT INTO memory_system.embedding_models (model_id, name, version, dimensions, fingerprint, source)"
    " SELECT max(model_id) + 1, :name, :version, :dimensions, :fingerprint, :source FROM memory_system.embedding_models RETURNING model_id"
)
_SET_TARGET = text("UPDATE memory_system.embedding_models SET is_target = true, source = :source WHERE model_id = :model_id")
_UNSET_TARGET = text("UPDATE memory_system.embedding_models SET is_target = false WHERE is_target")
_DEACTIVATE = text("UPDATE memory_system.embedding_models SET is_active = false WHERE is_active")
_ACTIVATE = text(
    "UPDATE memory_system.embedding_models SET is_active = true, is_target = false, activated_at = coalesce(activated_at, now())"
    " WHERE model_id = :model_id AND is_target"
)
_POLL_SECONDS = 0.1
_THIS_XID = text("SELECT pg_current_xact_id()::text")
_ALL_OLDER_ENDED = text("SELECT pg_snapshot_xmin(pg_current_snapshot()) > CAST(:xid AS xid8)")


def require_sound(encoder: Encoder) -> None:
    """Refuse a model that no change should be begun to.

    Raises:
        ConfigurationError: It cannot encode.
    """
    if (reason := Breaker.probe(encoder.encode_documents)) is not None:
        raise ConfigurationError(f"{encoder.name} cannot encode a plain sentence ({reason}): no change of model was begun")


def add_model(owner: Database, encoder: Encoder, source: str) -> int:
    """Make the encoder's model known, without a role, and return its number.

    Args:
        owner: Logged in as nexus_superuser, here and below.
        encoder: What the model is called and how long its vectors are.
        source: Where processes find its files.
    """
    name = encoder.name.rstrip("/").rpartition("/")[2]
    values = {
        "name": name,
        "version": f"{name}-{encoder.dimensions}-{_POOLING}-{encoder.fingerprint[:8]}",
        "dimensions": encoder.dimensions,
        "fingerprint": encoder.fingerprint,
        "source": source,
    }
    with owner.transaction() as connection:
        return int(connection.execute(_ADD, values).scalar_one())


def set_target(owner: Database, model_id: int, source: str) -> None:
    """Make a model the target; returns when every transaction has ended that does not know it.

    Episodes of such a transaction have work of the active model only, and must be there before they are looked for.
    """
    with owner.transaction() as connection:
        connection.execute(_SET_TARGET, {"model_id": model_id, "source": source})
        xid = connection.execute(_THIS_XID).scalar_one()
    while not _have_older_ended(owner, xid):
        time.sleep(_POLL_SECONDS)


def _have_older_ended(owner: Database, xid: str) -> bool:
    with owner.transaction() as connection:
        return bool(connection.execute(_ALL_OLDER_ENDED, {"xid": xid}).scalar_one())


def unset_target(owner: Database) -> None:
    """Leave the database without a target."""
    with owner.transaction() as connection:
        connection.execute(_UNSET_TARGET)


def activate_target(owner: Database, target: EmbeddingModel) -> None:
    """Make the target the active model.

    Raises:
        Conflict: It is not the target any more, and the active model stays.
    """
    fit_columns(owner, target.dimensions)
    with owner.transaction() as connection:
        connection.execute(_DEACTIVATE)
        if connection.execute(_ACTIVATE, {"model_id": target.model_id}).rowcount != 1:
            raise Conflict(f"{target.name} is not the target any more: the migration was rolled back")
