"""Proofs that a receipt is in the sealed ledger: made from the database, and checked without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from app.db import Database
from app.errors import Conflict, NotFound
from app.integrity import merkle, repository
from app.integrity.heads import Head, SignedHead, check_chain, entry_bytes, ledger_leaf, range_leaves


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That a version of an episode stands in the ledger: its entry, and the hashes from there to the roots in a head.

    Hashes in paths are bytes, the nearest first. `range_path` leads to the head's merkle_root, `tree_path` from that to its tree_root.
    """

    episode_id: UUID
    version: int
    ledger_seq: int
    event: str
    leaf: bytes
    range_path: list[bytes]
    tree_path: list[bytes]
    head: SignedHead


@dataclass(frozen=True, slots=True)
class Heads:
    """Every head in order, and, if an earlier one was named, the hashes that prove that its tree is the beginning of the last one's."""

    heads: list[SignedHead]
    consistency: list[bytes] | None


class ProofService:
    """Makes proofs.

    Args:
        database: Logged in as nexus_app.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def heads(self, since: int | None = None) -> Heads:
        """Return every head, in order; empty when nothing has been sealed yet.

        Args:
            since: Number of the range whose head the caller knows.

        Raises:
            NotFound: There is no such head.
        """
        with self._database.transaction() as connection:
            found = repository.heads(connection)
        if since is None:
            return Heads(found, None)
        if since >= len(found):
            raise NotFound("there is no such head")
        return Heads(found, merkle.consistency_path(_tree_leaves(found), since + 1))

    def prove(self, agent_id: str | None, episode_id: UUID, version: int | None = None) -> InclusionProof:
        """Return the proof that a version of an episode stands in the sealed ledger; it can be had after a deletion too.

        Args:
            agent_id: Whose episodes may be asked for; None asks for any, for administrators.
            episode_id: Which.
            version: Which version; None the latest.

        Raises:
            Conflict: The ledger has it, and its range is not sealed yet.
            NotFound: The ledger has no such version of this agent.
        """
        with self._database.transaction(agent_id) as connection:
            entry = repository.entry_of(connection, episode_id, version, agent_id)
            if entry is None:
                raise NotFound("the ledger has no such episode and version of this agent")
            found = repository.heads(connection)
            return self._prove(connection, episode_id, entry, found)

    @staticmethod
    def _prove(connection: Connection, episode_id: UUID, entry: repository.LedgerEntry, found: Sequence[SignedHead]) -> InclusionProof:
        signed = next((one for one in found if one.head.first_ledger_seq <= entry.ledger_seq <= one.head.last_ledger_seq), None)
        if signed is None:
            raise Conflict("the range of the ledger that this stands in is not sealed yet; ask again later")
        head = signed.head
        entries = repository.ledger_entries(connection, head.first_ledger_seq, head.last_ledger_seq)
        leaves = range_leaves(head.first_ledger_seq, head.last_ledger_seq, entries)
        return InclusionProof(
            episode_id=episode_id,
            version=entry.version,
            ledger_seq=entry.ledger_seq,
            event=entry.event,
            leaf=entry.leaf,
            range_path=merkle.inclusion_path(leaves, entry.ledger_seq - head.first_ledger_seq),
            tree_path=merkle.inclusion_path(_tree_leaves(found)[: head.range_no + 1], head.range_no),
            head=signed,
        )

    def audit(self, public_key: bytes | None = None, kept: Sequence[SignedHead] = ()) -> list[str]:
        """Return what is wrong with the sealed ledger as it is stored, one sentence each; empty when nothing is.

        Args:
            public_key: The key that must have signed it; None trusts the first head's own, so a chain that was signed anew by a
                stranger looks right.
            kept: Heads that somebody kept outside of the database; each must still be there.

        Every sealed entry is read again, 10,000 at a time: one that was altered, removed or inserted changes the root of its range.
        """
        with self._database.transaction() as connection:
            found = repository.heads(connection)
        problems = check_chain(found, public_key)
        stored = {signed.head.range_no: signed.head.sha256() for signed in found}
        for head in (signed.head for signed in kept):
            if head.range_no not in stored:
                problems.append(f"range {head.range_no}: its head was kept and is not stored: heads were removed")
            elif stored[head.range_no] != head.sha256():
                problems.append(f"range {head.range_no}: the head that was kept is another than the stored one: the ledger was sealed anew")
        for signed in found:
            head = signed.head
            with self._database.transaction() as connection:
                entries = repository.ledger_entries(connection, head.first_ledger_seq, head.last_ledger_seq)
            if merkle.root(range_leaves(head.first_ledger_seq, head.last_ledger_seq, entries)) != head.merkle_root:
                numbers = f"{head.first_ledger_seq} to {head.last_ledger_seq}"
                problems.append(f"range {head.range_no}: entries {numbers} of the ledger are not those that were sealed")
        return problems


def _tree_leaves(heads: Sequence[SignedHead]) -> list[bytes]:
    return [merkle.leaf_hash(signed.head.merkle_root) for signed in heads]


def head_to_json(signed: SignedHead) -> dict[str, Any]:
    """Return a head as the API and files have it; hashes in hex."""
    head = signed.head
    return {
        "range_no": head.range_no,
        "first_ledger_seq": head.first_ledger_seq,
        "last_ledger_seq": head.last_ledger_seq,
        "void_count": head.void_count,
        "merkle_root": head.merkle_root.hex(),
        "tree_root": head.tree_root.hex(),
        "previous_sha256": head.previous_sha256.hex(),
        "sealed_at": head.sealed_at,
        "public_key": signed.public_key.hex(),
        "signature": signed.signature.hex(),
    }


def whole_number(value: Any) -> int:
    """Return a whole number as JSON writes one: 1.0, true and "1" are other values than the service gave.

    Raises:
        TypeError: It is none.
    """
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def head_from_json(value: Mapping[str, Any]) -> SignedHead:
    """Return the head that a JSON object is.

    Raises:
        ValueError: It is none.
    """
    try:
        head = Head(
            range_no=whole_number(value["range_no"]),
            first_ledger_seq=whole_number(value["first_ledger_seq"]),
            last_ledger_seq=whole_number(value["last_ledger_seq"]),
            void_count=whole_number(value["void_count"]),
            merkle_root=bytes.fromhex(value["merkle_root"]),
            tree_root=bytes.fromhex(value["tree_root"]),
            previous_sha256=bytes.fromhex(value["previous_sha256"]),
            sealed_at=datetime.fromisoformat(value["sealed_at"]),
        )
        # A moment that no clock has cannot be written down again.
        head.signed_bytes()
        return SignedHead(head, bytes.fromhex(value["public_key"]), bytes.fromhex(value["signature"]))
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("not a head") from error


def proof_to_json(proof: InclusionProof) -> dict[str, Any]:
    """Return a proof as the API and files have it; hashes in hex."""
    return {
        "episode_id": proof.episode_id,
        "version": proof.version,
        "ledger_seq": proof.ledger_seq,
        "event": proof.event,
        "leaf": proof.leaf.hex(),
        "range_path": [found.hex() for found in proof.range_path],
        "tree_path": [found.hex() for found in proof.tree_path],
        "head": head_to_json(proof.head),
    }


def check_receipt(receipt: Mapping[str, Any], proof: Mapping[str, Any], heads: Sequence[SignedHead]) -> str | None:
    """Return why a receipt is not proved by a proof and the heads, or None when it is. No database is asked.

    Args:
        receipt: As the service gave it: episode_id, version, content_sha256 and nonce are what is proved. Its seq, agent_id and
            created_at are not part of the leaf.
        proof: As GET /integrity/proof/{episode_id} gave it.
        heads: The chain, checked by check_chain.
    """
    try:
        leaf = ledger_leaf(
            UUID(hex=str(receipt["nonce"])),
            UUID(str(receipt["episode_id"])),
            whole_number(receipt["version"]),
            bytes.fromhex(receipt["content_sha256"]),
        )
        ledger_seq, event = whole_number(proof["ledger_seq"]), str(proof["event"])
        range_path = [bytes.fromhex(found) for found in proof["range_path"]]
        tree_path = [bytes.fromhex(found) for found in proof["tree_path"]]
        range_no = whole_number(proof["head"]["range_no"])
        entry = merkle.leaf_hash(entry_bytes(ledger_seq, event, leaf))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return "the receipt or its proof is malformed"
    if event not in ("accepted", "edited"):
        return "the proof is not of an acceptance or an edit"
    if not 0 <= range_no < len(heads):
        return "the heads do not reach as far as the proof; fetch them again"
    head = heads[range_no].head
    size = head.last_ledger_seq - head.first_ledger_seq + 1
    if merkle.root_from_inclusion(entry, ledger_seq - head.first_ledger_seq, size, range_path) != head.merkle_root:
        return "the receipt is not what stands in the ledger at that place"
    if merkle.root_from_inclusion(merkle.leaf_hash(head.merkle_root), range_no, range_no + 1, tree_path) != head.tree_root:
        return "the range is not part of the tree that was signed"
    return None
