"""The audit log: who did what that concerns more than one memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

_INSERT = text(
    "INSERT INTO memory_system.audit_log (key_id, action, subject, details) VALUES (:key_id, :action, :subject, CAST(:details AS jsonb))"
)
_IS_RECORDED = text("SELECT EXISTS (SELECT 1 FROM memory_system.audit_log WHERE action = :action AND subject = :subject)")
_IS_RECORDED_LATELY = text(
    "SELECT EXISTS (SELECT 1 FROM memory_system.audit_log"
    " WHERE at > now() - make_interval(hours => :hours) AND action = :action AND subject = :subject)"
)
_LIST = text(
    """
    SELECT audit_id, at, key_id, action, subject, details FROM memory_system.audit_log
    WHERE CAST(:before AS bigint) IS NULL OR audit_id < :before ORDER BY audit_id DESC LIMIT :most
    """
)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One administrative action; `key_id` is None when it came from the command line."""

    audit_id: int
    at: datetime
    key_id: UUID | None
    action: str
    subject: str | None
    details: dict[str, Any]


def record(connection: Connection, key_id: UUID | None, action: str, subject: str | None, details: Mapping[str, Any]) -> None:
    """Write an entry in the transaction of what it tells of; never content or secrets.

    Args:
        connection: In a transaction.
        key_id: The key that asked for it; None for the command line.
        action: What was done, as a verb and its object.
        subject: To whom or what.
        details: JSON-ready.
    """
    connection.execute(_INSERT, {"key_id": key_id, "action": action, "subject": subject, "details": orjson.dumps(details).decode()})


def is_recorded(connection: Connection, action: str, subject: str) -> bool:
    """Return whether an action on a subject stands in the log."""
    return bool(connection.execute(_IS_RECORDED, {"action": action, "subject": subject}).scalar_one())


def is_recorded_lately(connection: Connection, action: str, subject: str, hours: int) -> bool:
    """Return whether an action on a subject stands in the log of the last hours; reads only those, by their index."""
    return bool(connection.execute(_IS_RECORDED_LATELY, {"action": action, "subject": subject, "hours": hours}).scalar_one())


def list_page(connection: Connection, most: int, before: int | None) -> list[AuditEntry]:
    """Return entries, the latest first; empty when there is none."""
    return [AuditEntry(**row._mapping) for row in connection.execute(_LIST, {"most": most, "before": before})]
