"""All SQL on the ledger and on the accounting identity."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.integrity.verdicts import Facts

_FACTS = text("SELECT * FROM memory_system.verification_facts(CAST(:claims AS jsonb), :agent_id)")
_RANGE = text("SELECT * FROM memory_system.claims_of_range(:first_seq, :last_seq, :agent_id)")
_IDENTITY = text("SELECT * FROM memory_system.accounting_identity(:agent_id)")


@dataclass(frozen=True, slots=True)
class AccountingIdentity:
    """accepted = searchable + pending + processing + dead + deleted, in episodes; `drift` is what the right side lacks."""

    accepted: int
    searchable: int
    pending: int
    processing: int
    dead: int
    deleted: int
    drift: int


def facts(connection: Connection, claims: str, agent_id: str | None) -> list[Facts]:
    """Return the facts on each claim of a JSON array, in its order."""
    return [Facts(**row._mapping) for row in connection.execute(_FACTS, {"claims": claims, "agent_id": agent_id})]


def claims_of_range(connection: Connection, first_seq: int, last_seq: int, agent_id: str | None) -> list[dict[str, Any]]:
    """Return a claim for each episode whose seq is in the range, in order of seq; empty when there is none."""
    rows = connection.execute(_RANGE, {"first_seq": first_seq, "last_seq": last_seq, "agent_id": agent_id})
    return [dict(row._mapping) for row in rows]


def identity(connection: Connection, agent_id: str | None) -> AccountingIdentity:
    """Return the accounting identity of one agent, or of all."""
    return AccountingIdentity(**connection.execute(_IDENTITY, {"agent_id": agent_id}).one()._mapping)
