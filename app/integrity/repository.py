"""All SQL on the ledger, its sealed ranges, and the accounting identity."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from app.integrity.heads import Head, SignedHead
from app.integrity.verdicts import Facts

_FACTS = text("SELECT * FROM memory_system.verification_facts(CAST(:claims AS jsonb), :agent_id)")
_RANGE = text("SELECT * FROM memory_system.claims_of_range(:first_seq, :last_seq, :agent_id)")
_LEDGER = text("SELECT * FROM memory_system.claims_of_ledger(:after, :most)")
_EPISODES = text("SELECT * FROM memory_system.claims_of_episodes(:after, :most)")
_IDENTITY = text("SELECT * FROM memory_system.accounting_identity(:agent_id)")
_SEMANTIC_IDENTITY = text("SELECT * FROM memory_system.semantic_identity(:agent_id)")
_POSITION = text(
    "SELECT last_ledger_seq, next_xid::text::bigint AS next_xid, oldest_xid::text::bigint AS oldest_xid, oldest_open_at"
    " FROM memory_system.ledger_position()"
)
_ENTRIES = text("SELECT ledger_seq, event, leaf FROM memory_system.ledger_entries(:first, :last)")
_HEADS = text(
    "SELECT range_no, first_ledger_seq, last_ledger_seq, void_count, merkle_root, tree_root, previous_sha256, sealed_at, public_key,"
    " signature FROM memory_system.ledger_heads ORDER BY range_no"
)
_ADD_HEAD = text(
    "SELECT memory_system.add_ledger_head(:range_no, :first_ledger_seq, :last_ledger_seq, :void_count, :merkle_root, :tree_root,"
    " :previous_sha256, :public_key, :signature, :sealed_at)"
)
_ENTRY_OF = text("SELECT ledger_seq, event, leaf, seq, version FROM memory_system.ledger_entry_of(:episode_id, :version, :agent_id)")


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


@dataclass(frozen=True, slots=True)
class SemanticIdentity:
    """stored = searchable + pending + processing + dead, in semantic memories; `drift` is how many are in no class."""

    stored: int
    searchable: int
    pending: int
    processing: int
    dead: int
    drift: int


def facts(connection: Connection, claims: str, agent_id: str | None) -> list[Facts]:
    """Return the facts on each claim of a JSON array, in its order."""
    return [Facts(**row._mapping) for row in connection.execute(_FACTS, {"claims": claims, "agent_id": agent_id})]


def claims_of_range(connection: Connection, first_seq: int, last_seq: int, agent_id: str | None) -> list[dict[str, Any]]:
    """Return a claim for each episode whose seq is in the range, in order of seq; empty when there is none."""
    rows = connection.execute(_RANGE, {"first_seq": first_seq, "last_seq": last_seq, "agent_id": agent_id})
    return [dict(row._mapping) for row in rows]


def claims_of_ledger(connection: Connection, after: int, most: int) -> tuple[list[dict[str, Any]], int | None]:
    """Return claims for the next acceptances of the ledger, and the number to go on after; None when these are the last."""
    rows = [dict(row._mapping) for row in connection.execute(_LEDGER, {"after": after, "most": most})]
    numbers = [row.pop("ledger_seq") for row in rows]
    return rows, numbers[-1] if len(rows) == most else None


def claims_of_unaccepted(connection: Connection, after: int, most: int) -> tuple[list[dict[str, Any]], int | None]:
    """Return claims for those of the next episodes that the ledger never accepted, and the seq to go on after, as above."""
    rows = [dict(row._mapping) for row in connection.execute(_EPISODES, {"after": after, "most": most})]
    found = [row for row in rows if not row.pop("is_accepted")]
    return found, rows[-1]["seq"] if len(rows) == most else None


def identity(connection: Connection, agent_id: str | None) -> AccountingIdentity:
    """Return the accounting identity of one agent, or of all."""
    return AccountingIdentity(**connection.execute(_IDENTITY, {"agent_id": agent_id}).one()._mapping)


@dataclass(frozen=True, slots=True)
class LedgerPosition:
    """How far the ledger has come; see memory_system.ledger_position."""

    last_ledger_seq: int
    next_xid: int
    oldest_xid: int
    oldest_open_at: datetime | None


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The acceptance or edit that made a version of an episode."""

    ledger_seq: int
    event: str
    leaf: bytes
    seq: int
    version: int


def semantic_identity(connection: Connection, agent_id: str | None) -> SemanticIdentity:
    """Return the accounting identity of the semantic memories of one agent, or of all."""
    return SemanticIdentity(**connection.execute(_SEMANTIC_IDENTITY, {"agent_id": agent_id}).one()._mapping)


def ledger_position(connection: Connection) -> LedgerPosition:
    """Return how far the ledger has come, and what is still running."""
    return LedgerPosition(**connection.execute(_POSITION).one()._mapping)


def ledger_entries(connection: Connection, first: int, last: int) -> dict[int, tuple[str, bytes]]:
    """Return (event, leaf) by number of what the ledger holds in a range."""
    rows = connection.execute(_ENTRIES, {"first": first, "last": last})
    return {row.ledger_seq: (row.event, bytes(row.leaf)) for row in rows}


def heads(connection: Connection) -> list[SignedHead]:
    """Return every head, in order; one for each 10,000 entries, so they are few."""
    found = []
    for row in connection.execute(_HEADS):
        head = Head(
            range_no=row.range_no,
            first_ledger_seq=row.first_ledger_seq,
            last_ledger_seq=row.last_ledger_seq,
            void_count=row.void_count,
            merkle_root=bytes(row.merkle_root),
            tree_root=bytes(row.tree_root),
            previous_sha256=bytes(row.previous_sha256),
            sealed_at=row.sealed_at,
        )
        found.append(SignedHead(head, bytes(row.public_key), bytes(row.signature)))
    return found


def add_head(connection: Connection, signed: SignedHead) -> bool:
    """Add the next head and return True; False when somebody else was faster."""
    head = signed.head
    values = {
        "range_no": head.range_no,
        "first_ledger_seq": head.first_ledger_seq,
        "last_ledger_seq": head.last_ledger_seq,
        "void_count": head.void_count,
        "merkle_root": head.merkle_root,
        "tree_root": head.tree_root,
        "previous_sha256": head.previous_sha256,
        "public_key": signed.public_key,
        "signature": signed.signature,
        "sealed_at": head.sealed_at,
    }
    return bool(connection.execute(_ADD_HEAD, values).scalar_one())


def entry_of(connection: Connection, episode_id: UUID, version: int | None, agent_id: str | None) -> LedgerEntry | None:
    """Return where the ledger has a version of an episode, the latest when none is named; None when it has none of the agent."""
    row = connection.execute(_ENTRY_OF, {"episode_id": episode_id, "version": version, "agent_id": agent_id}).one_or_none()
    return None if row is None else LedgerEntry(row.ledger_seq, row.event, bytes(row.leaf), row.seq, row.version)
