"""All SQL on memory_system.api_keys."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from app.identity.models import ApiKey, KeyRole

_COLUMNS = "key_id, key_sha256, name, role, agent_id, created_at, expires_at, revoked_at, last_used_at, rate_limit_per_minute"

_FIND = text(f"SELECT {_COLUMNS} FROM memory_system.api_keys WHERE key_sha256 = :key_sha256")
_FIND_BY_ID = text(f"SELECT {_COLUMNS} FROM memory_system.api_keys WHERE key_id = :key_id")
_LIST = text(f"SELECT {_COLUMNS} FROM memory_system.api_keys ORDER BY created_at, key_id")
_INSERT = text(
    f"""
    INSERT INTO memory_system.api_keys (key_sha256, name, role, agent_id, expires_at, rate_limit_per_minute)
    VALUES (:key_sha256, :name, :role, :agent_id, :expires_at, :rate_limit_per_minute)
    ON CONFLICT (key_sha256) DO NOTHING
    RETURNING {_COLUMNS}
    """
)
_REVOKE = text(
    f"""
    UPDATE memory_system.api_keys SET revoked_at = coalesce(revoked_at, now())
    WHERE key_id = :key_id
    RETURNING {_COLUMNS}
    """
)
_LOCK = text(f"SELECT {_COLUMNS} FROM memory_system.api_keys WHERE key_id = :key_id FOR UPDATE")
_EXPIRE = text(
    "UPDATE memory_system.api_keys SET expires_at = least(expires_at, now() + make_interval(secs => :seconds)) WHERE key_id = :key_id"
)
_TAKE_TURN = text("SELECT pg_advisory_xact_lock(hashtext('nexus administrators'))")
_COUNT_ADMINS = text(
    "SELECT count(*) FROM memory_system.api_keys WHERE role = 'admin' AND revoked_at IS NULL AND expires_at IS NULL AND key_id <> :key_id"
)
# Once in five minutes is enough to tell a used key from a forgotten one, and keeps the write off the request path.
_TOUCH = text(
    """
    UPDATE memory_system.api_keys SET last_used_at = now()
    WHERE key_id = :key_id AND (last_used_at IS NULL OR last_used_at < now() - interval '5 minutes')
    """
)


def _key(row: Row[Any]) -> ApiKey:
    values = row._asdict()
    values["key_sha256"] = bytes(values["key_sha256"])
    return ApiKey(**values)


def find(connection: Connection, key_sha256: bytes) -> ApiKey | None:
    """Return the key with this digest, whatever its state, or None."""
    row = connection.execute(_FIND, {"key_sha256": key_sha256}).one_or_none()
    return None if row is None else _key(row)


def find_by_id(connection: Connection, key_id: UUID) -> ApiKey | None:
    """Return the key with this id, whatever its state, or None."""
    row = connection.execute(_FIND_BY_ID, {"key_id": key_id}).one_or_none()
    return None if row is None else _key(row)


def list_all(connection: Connection) -> list[ApiKey]:
    """Return every key, oldest first; revoked and expired ones too."""
    return [_key(row) for row in connection.execute(_LIST)]


def insert(
    connection: Connection,
    *,
    key_sha256: bytes,
    name: str,
    role: KeyRole,
    agent_id: str | None,
    expires_at: datetime | None,
    rate_limit_per_minute: int | None = None,
) -> ApiKey | None:
    """Store a key and return it; None when a key with this digest is there already."""
    row = connection.execute(
        _INSERT,
        {
            "key_sha256": key_sha256,
            "name": name,
            "role": role,
            "agent_id": agent_id,
            "expires_at": expires_at,
            "rate_limit_per_minute": rate_limit_per_minute,
        },
    ).one_or_none()
    return None if row is None else _key(row)


def revoke(connection: Connection, key_id: UUID) -> ApiKey | None:
    """Revoke a key and return it; a second time changes nothing. None when there is no such key."""
    row = connection.execute(_REVOKE, {"key_id": key_id}).one_or_none()
    return None if row is None else _key(row)


def touch(connection: Connection, key_id: UUID) -> None:
    """Note that a key was used, at most once in five minutes."""
    connection.execute(_TOUCH, {"key_id": key_id})


def lock(connection: Connection, key_id: UUID) -> ApiKey | None:
    """Return a key, locked until the end of the transaction, or None."""
    row = connection.execute(_LOCK, {"key_id": key_id}).one_or_none()
    return None if row is None else _key(row)


def expire_in(connection: Connection, key_id: UUID, seconds: int) -> None:
    """Let a key end so many seconds from now, unless it ends earlier anyway."""
    connection.execute(_EXPIRE, {"key_id": key_id, "seconds": seconds})


def count_other_admins(connection: Connection, key_id: UUID) -> int:
    """Return how many administrator's keys there are beside one that are good for ever.

    Whoever counts takes turns until the end of the transaction: of two that end each other's key, the second must see it.
    """
    connection.execute(_TAKE_TURN)
    return int(connection.execute(_COUNT_ADMINS, {"key_id": key_id}).scalar_one())
