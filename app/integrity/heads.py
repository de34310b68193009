"""Sealed ranges of the ledger: what an entry is in its tree, and the signed head over each range. Pure but for the signature."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.integrity import merkle

RANGE_SIZE = 10_000
"""Entries of a full range; one that was sealed because time went by has fewer."""

NO_HEAD = bytes(32)
"""What the first head has in the place of its predecessor's hash."""

_EVENTS = {"void": 0, "accepted": 1, "edited": 2, "deleted": 3}
_NO_LEAF = bytes(32)


def ledger_leaf(nonce: UUID, episode_id: UUID, version: int, content_sha256: bytes) -> bytes:
    """Return what the ledger keeps of a version of an episode; the same as memory_system.ledger_leaf."""
    return hashlib.sha256(nonce.bytes + episode_id.bytes + version.to_bytes(4, "big") + content_sha256).digest()


def entry_bytes(ledger_seq: int, event: str, leaf: bytes) -> bytes:
    """Return an entry of the ledger as its tree has it: number (8 bytes, big-endian), event (1 byte), leaf (32 bytes)."""
    return ledger_seq.to_bytes(8, "big") + bytes([_EVENTS[event]]) + leaf


def range_leaves(first: int, last: int, entries: Mapping[int, tuple[str, bytes]]) -> list[bytes]:
    """Return the leaf hashes of a range, in order; a number that was given out and never written is void.

    Args:
        first: First number of the range.
        last: Last number of the range.
        entries: (event, leaf) by number.
    """
    return [merkle.leaf_hash(entry_bytes(number, *entries.get(number, ("void", _NO_LEAF)))) for number in range(first, last + 1)]


def tree_root(range_roots: Sequence[bytes]) -> bytes:
    """Return the root of the tree whose entries are the roots of all ranges, in order."""
    return merkle.root([merkle.leaf_hash(found) for found in range_roots])


@dataclass(frozen=True, slots=True)
class Head:
    """What is signed of a sealed range.

    `merkle_root` is over the range's entries, `tree_root` over the roots of all ranges up to this one; `previous_sha256` is the hash of
    the head before.
    """

    range_no: int
    first_ledger_seq: int
    last_ledger_seq: int
    void_count: int
    merkle_root: bytes
    tree_root: bytes
    previous_sha256: bytes
    sealed_at: datetime

    def signed_bytes(self) -> bytes:
        """Return the bytes under the signature: JSON with sorted names, no white space, hashes in hex, time in UTC to the microsecond."""
        return json.dumps(
            {
                "range_no": self.range_no,
                "first_ledger_seq": self.first_ledger_seq,
                "last_ledger_seq": self.last_ledger_seq,
                "void_count": self.void_count,
                "merkle_root": self.merkle_root.hex(),
                "tree_root": self.tree_root.hex(),
                "previous_sha256": self.previous_sha256.hex(),
                "sealed_at": self.sealed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()

    def sha256(self) -> bytes:
        """Return the hash by which the next head names this one."""
        return hashlib.sha256(self.signed_bytes()).digest()


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head, its Ed25519 signature (64 bytes), and the public key (32 bytes) that it was made under."""

    head: Head
    public_key: bytes
    signature: bytes

    def is_signed(self) -> bool:
        """Return whether the signature is that of the key beside it; whether the key is the right one, only the reader knows."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(self.signature, self.head.signed_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """Signs heads.

    Args:
        secret: The secret's text; the key is made of its hash, so that any random text will do.
    """

    def __init__(self, secret: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(secret.encode()).digest())
        self.public_key: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, head: Head) -> SignedHead:
        """Return the head with its signature."""
        return SignedHead(head, self.public_key, self._key.sign(head.signed_bytes()))


def check_chain(heads: Sequence[SignedHead], public_key: bytes | None = None) -> list[str]:
    """Return what is wrong with a chain of heads that begins with the first, one sentence each; empty when nothing is.

    Args:
        heads: In order.
        public_key: The key that the reader trusts; None takes the first head's, and finds a later change of it wrong.
    """
    problems = []
    trusted = public_key if public_key is not None else (heads[0].public_key if heads else b"")
    previous, next_seq = NO_HEAD, 1
    roots: list[bytes] = []
    for number, signed in enumerate(heads):
        head = signed.head
        roots.append(head.merkle_root)
        name = f"head {number}"
        if head.range_no != number or head.first_ledger_seq != next_seq or head.last_ledger_seq < head.first_ledger_seq:
            problems.append(f"{name}: its range does not follow the one before")
        if head.previous_sha256 != previous:
            problems.append(f"{name}: it does not name the head before it")
        if signed.public_key != trusted:
            problems.append(f"{name}: it is of another key")
        if not signed.is_signed():
            problems.append(f"{name}: its signature is wrong")
        if tree_root(roots) != head.tree_root:
            problems.append(f"{name}: its tree root is not that of the ranges")
        previous, next_seq = head.sha256(), head.last_ledger_seq + 1
    return problems
