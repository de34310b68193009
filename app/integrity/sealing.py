"""Sealing the ledger: range after range, once nothing in it can change, a head is signed and added."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy import Connection

from app.db import Database
from app.integrity import merkle, repository
from app.integrity.heads import NO_HEAD, RANGE_SIZE, Head, SignedHead, Signer, range_leaves, tree_root
from app.integrity.repository import LedgerPosition

_log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a run did: ranges sealed, and entries that are not sealed yet."""

    ranges: int
    waiting: int


class SealingService:
    """Adds heads.

    Args:
        database: Logged in as nexus_worker.
        signer: Returns what signs them; asked when there is something to sign, so that only that needs the key.
        seal_after_seconds: When a range that is not full is sealed all the same: this long after its first entry.
    """

    def __init__(self, database: Database, signer: Callable[[], Signer], seal_after_seconds: float) -> None:
        self._database = database
        self._signer = signer
        self._seal_after_seconds = seal_after_seconds

    def seal(self, *, everything: bool = False, patience_seconds: float = 20.0) -> Sealed:
        """Seal what is full or old enough. Any number of processes may do so at once.

        Args:
            everything: Seal the rest too, however few entries it has.
            patience_seconds: How long to wait for transactions that may still write into a range. What is not settled by then is left
                for the next run.

        Raises:
            ConfigurationError: The key is missing.
            DatabaseUnavailable: What was sealed so far stays.
        """
        with self._database.transaction() as connection:
            position = repository.ledger_position(connection)
        if not self._settled(position, patience_seconds):
            _log.info("ledger_not_settled", action="a transaction is open for long; sealing goes on when it ends")
            return Sealed(0, position.last_ledger_seq)
        is_old = position.oldest_open_at is not None and self._age(position.oldest_open_at) >= self._seal_after_seconds
        ranges = 0
        while True:
            with self._database.transaction() as connection:
                heads = repository.heads(connection)
                sealed = heads[-1].head.last_ledger_seq if heads else 0
                last = min(sealed + RANGE_SIZE, position.last_ledger_seq)
                if last <= sealed or (last - sealed < RANGE_SIZE and not (everything or is_old)):
                    return Sealed(ranges, max(0, position.last_ledger_seq - sealed))
                ranges += self._seal_one(connection, heads, sealed + 1, last)

    @staticmethod
    def _age(moment: datetime) -> float:
        return (datetime.now(UTC) - moment).total_seconds()

    def _settled(self, position: LedgerPosition, patience_seconds: float) -> bool:
        """Wait until every transaction that could have taken a number up to the position has ended."""
        deadline = time.monotonic() + patience_seconds
        while True:
            with self._database.transaction() as connection:
                if repository.ledger_position(connection).oldest_xid >= position.next_xid:
                    return True
            if time.monotonic() > deadline:
                return False
            threading.Event().wait(_POLL_SECONDS)

    def _seal_one(self, connection: Connection, heads: list[SignedHead], first: int, last: int) -> int:
        entries = repository.ledger_entries(connection, first, last)
        merkle_root = merkle.root(range_leaves(first, last, entries))
        head = Head(
            range_no=len(heads),
            first_ledger_seq=first,
            last_ledger_seq=last,
            void_count=last - first + 1 - len(entries),
            merkle_root=merkle_root,
            tree_root=tree_root([*(signed.head.merkle_root for signed in heads), merkle_root]),
            previous_sha256=heads[-1].head.sha256() if heads else NO_HEAD,
            sealed_at=datetime.now(UTC),
        )
        if not repository.add_head(connection, self._signer().sign(head)):
            return 0
        _log.info("range_sealed", range_no=head.range_no, entries=len(entries), void=head.void_count)
        return 1
