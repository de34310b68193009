"""Authentication: turns a presented key into a principal, and issues, lists and revokes keys."""

import hmac
import re
import time
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Lock
from uuid import UUID

from sqlalchemy import Connection

from app.audit import AuditEntry, is_recorded, list_page, record
from app.db import Database
from app.db_wait import answers_within
from app.errors import Conflict, DatabaseUnavailable, InvalidRequest, NotFound, Unauthenticated
from app.identity import repository
from app.identity.api_keys import digest, new_secret
from app.identity.models import BOUND_ROLES, ApiKey, IssuedKey, KeyRole, Principal
from app.plain_text import is_plain

AGENT_ID_PATTERN = r"^[A-Za-z0-9._@-]{1,128}$"
"""What an agent may be called; the database checks the same."""

_AGENT_ID = re.compile(AGENT_ID_PATTERN.removesuffix("$") + r"\Z")
_MAX_SECRET_CHARS = 256
_ROTATED = "rotate key"
_CACHED_KEYS = 4096
_CACHED_REFUSALS = 1024
MAX_RATE_LIMIT = 1_000_000
_LOOKUP_SECONDS = 5.0
_WATCHING_SECONDS = 2.0
"""How long those wait who look what is wrong."""
"""How long PostgreSQL may take to find a key: every route waits for it, and /health has to say that it does not answer."""


def is_agent_id(value: str) -> bool:
    """Return whether the value may name an agent."""
    return _AGENT_ID.match(value) is not None


class _Lookups:
    """A bounded memory of key lookups; the oldest is forgotten first.

    Args:
        limit: Most entries kept.
        seconds: How long an entry holds.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._entries: OrderedDict[bytes, tuple[float, ApiKey | None]] = OrderedDict()
        self._lock = Lock()

    def get(self, key_sha256: bytes) -> tuple[bool, ApiKey | None]:
        """Return (known, key)."""
        with self._lock:
            entry = self._entries.get(key_sha256)
        if entry is None or entry[0] <= time.monotonic():
            return False, None
        return True, entry[1]

    def last(self, key_sha256: bytes) -> ApiKey | None:
        """Return what was found last, however long ago."""
        with self._lock:
            entry = self._entries.get(key_sha256)
        return entry[1] if entry is not None else None

    def put(self, key_sha256: bytes, key: ApiKey | None) -> None:
        """Remember what a lookup found."""
        with self._lock:
            self._entries[key_sha256] = (time.monotonic() + self._seconds, key)
            self._entries.move_to_end(key_sha256)
            while len(self._entries) > self._limit:
                self._entries.popitem(last=False)


class KeyService:
    """Keys of the API.

    Args:
        database: A pool that logs in as nexus_app.
        cache_seconds: How long a looked-up key is trusted without asking the database again; also
            the longest time a revoked key goes on working in a process.
    """

    def __init__(self, database: Database, cache_seconds: float) -> None:
        self._database = database
        self._known = _Lookups(_CACHED_KEYS, cache_seconds)
        # Apart from the good keys, so that guessing at random cannot push those out.
        self._refused = _Lookups(_CACHED_REFUSALS, cache_seconds)

    def authenticate(self, secret: str, *, trusts_outage: bool = False) -> Principal:
        """Return whom the key stands for.

        Args:
            secret: The key as presented.
            trusts_outage: Whether a key that this process knew as good stays so while PostgreSQL cannot be asked: for those who look
                what is wrong, since nobody can revoke a key meanwhile either.

        Raises:
            Unauthenticated: The key is unknown, revoked or expired; the three are not told apart.
            DatabaseUnavailable: The key is not in the cache and cannot be looked up.
        """
        if not secret or len(secret) > _MAX_SECRET_CHARS:
            raise Unauthenticated("the API key is not valid")
        key_sha256 = digest(secret)
        try:
            key = self._find(key_sha256, _WATCHING_SECONDS if trusts_outage else _LOOKUP_SECONDS)
        except DatabaseUnavailable:
            key = self._known.last(key_sha256)
            if key is None or not trusts_outage:
                raise
        if key is None or not hmac.compare_digest(key.key_sha256, key_sha256) or not key.is_usable(datetime.now(UTC)):
            raise Unauthenticated("the API key is not valid")
        return Principal(key.key_id, key.role, key.agent_id, key.rate_limit_per_minute)

    def _find(self, key_sha256: bytes, patience_seconds: float) -> ApiKey | None:
        for lookups in (self._known, self._refused):
            known, key = lookups.get(key_sha256)
            if known:
                return key
        with answers_within(patience_seconds):
            with self._database.transaction() as connection:
                key = repository.find(connection, key_sha256)
            if key is not None and key.is_usable(datetime.now(UTC)):
                # A key opens also where nothing can be written.
                with suppress(DatabaseUnavailable), self._database.transaction() as connection:
                    repository.touch(connection, key.key_id)
        (self._refused if key is None else self._known).put(key_sha256, key)
        return key

    def create(
        self,
        *,
        role: KeyRole,
        name: str,
        agent_id: str | None,
        expires_days: int | None,
        rate_limit_per_minute: int | None = None,
        by: UUID | None = None,
    ) -> IssuedKey:
        """Issue a key.

        Args:
            role: What it may do.
            name: What people call it; 1 to 128 characters that a terminal shows as they are.
            agent_id: The agent it is bound to; needed for agent and readonly keys, refused for the others.
            expires_days: Days until it stops working; None for never.
            rate_limit_per_minute: Requests it may make in a minute; None for the server's default.
            by: The key that asks for it, for the audit log; None for the command line.

        Raises:
            InvalidRequest: Role and agent do not fit, or a value is out of bounds.
        """
        check_new_key(role, name, agent_id, expires_days, rate_limit_per_minute)
        secret = new_secret(role)
        with self._database.transaction() as connection:
            key = repository.insert(
                connection,
                key_sha256=digest(secret),
                name=name,
                role=role,
                agent_id=agent_id,
                expires_at=None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days),
                rate_limit_per_minute=rate_limit_per_minute,
            )
            if key is None:  # A digest of 238 random bits that is there already.
                raise InvalidRequest("the key could not be stored; try again")
            record(connection, by, "create key", str(key.key_id), {"role": role, "agent_id": agent_id})
        return IssuedKey(secret=secret, key=key)

    def list_keys(self) -> list[ApiKey]:
        """Return every key, oldest first; revoked and expired ones too."""
        with self._database.transaction() as connection:
            return repository.list_all(connection)

    def revoke(self, key_id: UUID, by: UUID | None = None) -> ApiKey:
        """Revoke a key and return it; running processes follow within their cache time.

        Args:
            key_id: Which.
            by: The key that asks for it, for the audit log; None for the command line, which may revoke the last administrator's.

        Raises:
            Conflict: It is the last administrator's key that does not expire.
            NotFound: There is no such key.
        """
        with self._database.transaction() as connection:
            held = self._lock(connection, key_id)
            is_last = held.role == "admin" and held.is_usable(datetime.now(UTC)) and not repository.count_other_admins(connection, key_id)
            if by is not None and is_last:
                raise Conflict("this is the last administrator's key that does not expire; make another one first")
            key = repository.revoke(connection, key_id)
            record(connection, by, "revoke key", str(key_id), {})
        return key or held

    def rotate(self, key_id: UUID, grace_seconds: int, by: UUID | None = None) -> IssuedKey:
        """Issue a key that is like another one, and let that one end.

        Args:
            key_id: Which.
            grace_seconds: How long the old key goes on working; running processes follow within their cache time.
            by: The key that asks for it, for the audit log; None for the command line.

        Raises:
            Conflict: The key is revoked, has expired or was rotated already.
            NotFound: There is no such key.
        """
        with self._database.transaction() as connection:
            old = self._lock(connection, key_id)
            if not old.is_usable(datetime.now(UTC)):
                raise Conflict("the key is revoked or has expired; make a new one")
            if is_recorded(connection, _ROTATED, str(key_id)):
                raise Conflict("the key was rotated already; rotate the one that took its place")
            secret = new_secret(old.role)
            key = repository.insert(
                connection,
                key_sha256=digest(secret),
                name=old.name,
                role=old.role,
                agent_id=old.agent_id,
                expires_at=old.expires_at,
                rate_limit_per_minute=old.rate_limit_per_minute,
            )
            if key is None:
                raise InvalidRequest("the key could not be stored; try again")
            if grace_seconds:
                repository.expire_in(connection, key_id, grace_seconds)
            else:
                repository.revoke(connection, key_id)
            record(connection, by, _ROTATED, str(key_id), {"new_key_id": str(key.key_id), "grace_seconds": grace_seconds})
        return IssuedKey(secret=secret, key=key)

    @staticmethod
    def _lock(connection: Connection, key_id: UUID) -> ApiKey:
        key = repository.lock(connection, key_id)
        if key is None:
            raise NotFound(f"there is no key {key_id}")
        return key

    def audit(self, limit: int, before: int | None = None) -> list[AuditEntry]:
        """Return the latest entries of the audit log, the latest first.

        Args:
            limit: How many at most.
            before: Only entries before this one.
        """
        with self._database.transaction() as connection:
            return list_page(connection, limit, before)


def check_new_key(role: KeyRole, name: str, agent_id: str | None, expires_days: int | None, rate_limit_per_minute: int | None) -> None:
    """Check what `KeyService.create` is asked for.

    Raises:
        InvalidRequest: Role and agent do not fit, or a value is out of bounds.
    """
    if (role in BOUND_ROLES) != (agent_id is not None):
        needs = "needs an" if role in BOUND_ROLES else "takes no"
        raise InvalidRequest(f"a key of role {role} {needs} agent")
    if agent_id is not None and not is_agent_id(agent_id):
        raise InvalidRequest(f"the agent must match {AGENT_ID_PATTERN}")
    if not name.strip() or len(name) > 128:
        raise InvalidRequest("the name must have 1 to 128 characters")
    if not is_plain(name):
        raise InvalidRequest("the name must hold no control characters, line breaks or marks that turn the direction of writing")
    if expires_days is not None and not 1 <= expires_days <= 36_500:
        raise InvalidRequest("a key expires after 1 to 36,500 days")
    if rate_limit_per_minute is not None and not 1 <= rate_limit_per_minute <= MAX_RATE_LIMIT:
        raise InvalidRequest(f"a key may make 1 to {MAX_RATE_LIMIT:,} requests a minute")
