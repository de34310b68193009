"""Who is calling: a stored API key and the principal that a good key stands for."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

KeyRole = Literal["admin", "agent", "operator", "readonly"]
"""What a key may be: see permissions.py for what each may do."""

BOUND_ROLES: frozenset[str] = frozenset({"agent", "readonly"})
"""Roles whose keys belong to exactly one agent."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One row of memory_system.api_keys; the key itself is never stored, only its SHA-256."""

    key_id: UUID
    key_sha256: bytes
    name: str
    role: KeyRole
    agent_id: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    rate_limit_per_minute: int | None = None

    def is_usable(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired at `now` (aware UTC)."""
        return self.state(now) == "active"

    def state(self, now: datetime) -> str:
        """Return active, expired or revoked at `now` (aware UTC)."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at is None or self.expires_at > now else "expired"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of one request.

    `agent_id` is the agent that the key is bound to, and None for admin and operator keys.
    `rate_limit_per_minute` is None when the key has no limit of its own.
    """

    key_id: UUID
    role: KeyRole
    agent_id: str | None
    rate_limit_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key: `secret` is shown once and cannot be had again."""

    secret: str
    key: ApiKey
