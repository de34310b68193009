"""Proving what is stored: verdicts on receipts, and the accounting identity."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from app.db import Database
from app.errors import InvalidRequest
from app.integrity import repository
from app.integrity.repository import AccountingIdentity, SemanticIdentity
from app.integrity.verdicts import Verdict, judge

__all__ = ["AccountingIdentity", "IntegrityService", "ReceiptClaim", "SemanticIdentity", "Verdict"]

MAX_RANGE = 10_000
_BELOW_ANY_SEQ = -(2**63)
_DRIFT_SECONDS = 10.0
_DRIFT_SHARE = 0.05
"""At most so much of the time goes into counting the drift, however much there is to count."""


@dataclass(frozen=True, slots=True)
class ReceiptClaim:
    """A receipt as a client kept it; hash and nonce in hex."""

    episode_id: UUID
    seq: int
    version: int
    content_sha256: str
    nonce: str


class IntegrityService:
    """Checks claims against the ledger, the episodes and their vectors.

    Args:
        database: Logged in as nexus_app.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._drift = 0
        self._next_count = 0.0

    def verify_receipts(self, agent_id: str | None, receipts: Sequence[ReceiptClaim]) -> list[Verdict]:
        """Return a verdict for each receipt, in order.

        Args:
            agent_id: Whose episodes may be looked at; another agent's is missing. None looks at all, for administrators.
            receipts: As the service gave them out.
        """
        claims = [
            {
                "episode_id": claim.episode_id,
                "seq": claim.seq,
                "version": claim.version,
                "content_sha256": claim.content_sha256,
                "nonce": claim.nonce,
            }
            for claim in receipts
        ]
        with self._database.transaction(agent_id) as connection:
            return self._judge(connection, claims, agent_id)

    def verify_range(self, agent_id: str | None, first_seq: int, last_seq: int) -> list[Verdict]:
        """Return a verdict for each episode accepted or stored with a seq in [first_seq, last_seq], in order of seq.

        Raises:
            InvalidRequest: The range is backwards or longer than 10,000.
        """
        if not 0 <= last_seq - first_seq < MAX_RANGE:
            raise InvalidRequest(f"first_seq must not be after last_seq, and a range holds at most {MAX_RANGE} numbers")
        with self._database.transaction(agent_id) as connection:
            return self._judge(connection, repository.claims_of_range(connection, first_seq, last_seq, agent_id), agent_id)

    def verdict_of(self, agent_id: str | None, episode_id: UUID) -> Verdict:
        """Return the verdict on the latest version of one episode, by what the ledger has of it; `seq` is 0 when that is nothing.

        Args:
            agent_id: Whose episodes may be looked at; another agent's is missing. None looks at all, for administrators.
            episode_id: Which.
        """
        with self._database.transaction(agent_id) as connection:
            entry = repository.entry_of(connection, episode_id, None, agent_id)
            seq, version = (entry.seq, entry.version) if entry is not None else (0, 1)
            return self._judge(connection, [{"episode_id": episode_id, "seq": seq, "version": version}], agent_id)[0]

    def verify_all(self, tell: Callable[[int], None] = lambda _done: None) -> Iterator[Verdict]:
        """Yield a verdict for every episode over all agents: those accepted in the order of the ledger, then what stands beside it.

        A transaction looks at most at 10,000 rows, so memory is bounded however many there are.

        Args:
            tell: Told after each step how many verdicts it gave.
        """
        for read, start in ((repository.claims_of_ledger, 0), (repository.claims_of_unaccepted, _BELOW_ANY_SEQ)):
            after: int | None = start
            while after is not None:
                with self._database.transaction() as connection:
                    claims, after = read(connection, after, MAX_RANGE)
                    verdicts = self._judge(connection, claims, None) if claims else []
                yield from verdicts
                tell(len(verdicts))

    @staticmethod
    def _judge(connection: Connection, claims: Sequence[dict[str, Any]], agent_id: str | None) -> list[Verdict]:
        facts = repository.facts(connection, orjson.dumps(claims).decode(), agent_id)
        return [judge(fact) for fact in facts]

    def identity(self, agent_id: str | None = None) -> AccountingIdentity:
        """Return the accounting identity of one agent, or of all; every term is from one snapshot, and drift must be 0."""
        with self._database.transaction(agent_id) as connection:
            return repository.identity(connection, agent_id)

    def semantic_identity(self, agent_id: str | None = None) -> SemanticIdentity:
        """Return the accounting identity of semantic memories, which have no ledger; drift must be 0."""
        with self._database.transaction(agent_id) as connection:
            return repository.semantic_identity(connection, agent_id)

    def drift(self) -> int:
        """Return the drift over all agents, of episodes and semantic memories together.

        It is counted at most every ten seconds in this process, and less often where it takes long, because that reads every row.
        """
        began = time.monotonic()
        if began >= self._next_count:
            self._drift = abs(self.identity().drift) + self.semantic_identity().drift
            ended = time.monotonic()
            self._next_count = ended + max(_DRIFT_SECONDS, (ended - began) / _DRIFT_SHARE)
        return self._drift
