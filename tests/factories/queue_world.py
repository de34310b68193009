"""The real services on real PostgreSQL, as the queue's state machine moves them, and what must hold of them at any moment."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from psycopg2 import extensions

from app.bootstrap import Services
from app.config import Settings
from app.db import Database
from app.embedding.service import EmbeddingService
from app.queue.lanes import LANES, LowWater
from app.queue.models import Batch
from app.queue.service import QueueService
from app.queue.workers import WorkerIdentity
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import QueueRow, stored_row
from tests.factories.history import read, untallied, violations
from tests.factories.statements import Sql

SLOTS, BATCH_ROWS, ATTEMPTS = 2, 3, 5
WINDOW = 2 * BATCH_ROWS * SLOTS
MOST_IN_FLIGHT = WINDOW + sum(math.ceil(WINDOW * lane.reserve) for lane in LANES[:-1])
"""A window full of low rows, and then the reserves of every other lane."""

_QUEUE = "memory_system.embeddings_queue"
_EMPTY = (
    f"TRUNCATE nexus_memory.zep_episodic_memory, nexus_memory.episode_chunks, {_QUEUE}, memory_system.ledger, memory_system.workers,"
    " test_mode.queue_history, memory_system.done_tallies, memory_system.dead_tallies"
)
_BREACHES = {
    "I1: an episode has neither its vector nor work": f"""
        SELECT e.episode_id FROM nexus_memory.zep_episodic_memory e LEFT JOIN {_QUEUE} q ON q.target_id = e.episode_id
        WHERE q.input_sha256 IS DISTINCT FROM e.input_sha256
           OR (q.state = 'done' AND (e.embedding_sha256 IS DISTINCT FROM e.input_sha256
                                     OR NOT EXISTS (SELECT 1 FROM nexus_memory.episode_chunks c WHERE c.episode_id = e.episode_id)))""",
    "I1: work is left for an episode that is gone": f"""
        SELECT q.target_id FROM {_QUEUE} q
        WHERE NOT EXISTS (SELECT 1 FROM nexus_memory.zep_episodic_memory e WHERE e.episode_id = q.target_id)""",
    "I2: a stale vector can be served": """
        SELECT e.episode_id FROM nexus_memory.zep_episodic_memory e LEFT JOIN nexus_memory.episode_chunks c USING (episode_id)
        WHERE c.input_sha256 <> e.input_sha256 OR e.embedding_sha256 <> e.input_sha256""",
    "I5: attempts beyond the last, or death before it": f"""
        SELECT target_id FROM {_QUEUE}
        WHERE retry_count > {ATTEMPTS} OR (state = 'dead') <> (retry_count = {ATTEMPTS} AND state NOT IN ('processing', 'done'))""",
}
_BREACH = " UNION ALL ".join(f"SELECT '{name}', b.*::text FROM ({query}) b" for name, query in _BREACHES.items())


def impatient(settings: Settings) -> Settings:
    """Return settings of small batches and short pauses, so that few steps see many batches."""
    return settings.model_copy(update={"batch_rows": BATCH_ROWS, "breaker_base_seconds": 0.01, "max_attempts": ATTEMPTS})


class Dispatcher(QueueService):
    """A dispatcher's queue, with its clock in the test's hand, and no grace for a PostgreSQL that has just started."""

    def __init__(self, database: Database, settings: Settings, clock: Callable[[], float]) -> None:
        super().__init__(database, settings.model_copy(update={"heartbeat_seconds": 0.0}))
        self._low_water = LowWater(clock)


@dataclass(frozen=True)
class World:
    """Writers, dispatchers and a worker on a database whose queue is recorded.

    Attributes:
        new_dispatcher: Makes the queue as one more dispatcher process sees it, by the given clock.
        new_client: Opens a connection of a client of its own, not in autocommit.
        sql: The superuser.
    """

    services: Services
    embedding: EmbeddingService
    encoder: FakeEncoder
    new_dispatcher: Callable[[Callable[[], float]], QueueService]
    new_client: Callable[[], extensions.connection]
    sql: Sql

    def empty(self) -> None:
        """Forget all episodes, their work, and the record of it."""
        self.sql(_EMPTY)

    def announce_worker(self, queue: QueueService) -> None:
        """Say that a worker is alive, so that there is room to claim."""
        queue.beat(WorkerIdentity("worker@test:1", "worker", "test", 1, SLOTS, self.embedding.model.model_id, "fp32"))

    def rows(self, target_ids: Iterable[UUID]) -> dict[UUID, QueueRow]:
        """Return the rows of the queue as they are now."""
        return {target_id: stored_row(self.sql, target_id) for target_id in target_ids}

    def held(self, batch: Batch) -> dict[UUID, QueueRow]:
        """Return those rows of a batch that its token still holds."""
        token = str(batch.claim.token)
        held = {target_id for (target_id,) in self.sql(f"SELECT target_id::text FROM {_QUEUE} WHERE claim_token = %s", token)}
        return self.rows(target_id for target_id in batch.claim.target_ids if str(target_id) in held)

    def unstarted(self, batch: Batch) -> dict[UUID, QueueRow]:
        """Return those rows of a batch that its token still holds and nobody has started."""
        return {target_id: row for target_id, row in self.held(batch).items() if row.started_at is None}

    def tokens_in_flight(self) -> set[str]:
        """Return the claims that hold anything."""
        return {token for (token,) in self.sql(f"SELECT DISTINCT claim_token::text FROM {_QUEUE} WHERE state = 'processing'")}

    def expired(self) -> dict[UUID, QueueRow]:
        """Return the rows whose lease has ended."""
        expired = self.sql(f"SELECT target_id::text FROM {_QUEUE} WHERE state = 'processing' AND lease_until < now()")
        return self.rows(UUID(target_id) for (target_id,) in expired)

    def end_leases(self, batch: Batch | None = None) -> None:
        """End the lease of a batch by hand, or every lease."""
        of_batch = "" if batch is None else f" AND claim_token = '{batch.claim.token}'"
        self.sql(f"UPDATE {_QUEUE} SET lease_until = now() - interval '1 s' WHERE state = 'processing'{of_batch}")

    def make_due(self) -> None:
        """End every wait for a next attempt by hand."""
        self.sql(f"UPDATE {_QUEUE} SET due_at = now() WHERE state = 'pending' AND due_at > now()")

    def open_work(self) -> int:
        """Return how many rows are neither done nor dead."""
        return int(self.sql.one(f"SELECT count(*) FROM {_QUEUE} WHERE state IN ('pending', 'processing')"))

    def queue_row_and_its_version(self, target_id: UUID) -> list[tuple[object, ...]]:
        """Return a row with the transaction that wrote it: equal as long as nobody wrote to it."""
        return self.sql(f"SELECT xmin::text, * FROM {_QUEUE} WHERE target_id = %s", str(target_id))

    def lose_work(self, target_id: UUID) -> None:
        """Lose what triggers would not let go: the vector of an embedded episode, else its work."""
        if stored_row(self.sql, target_id).state == "done":
            lose = "UPDATE nexus_memory.zep_episodic_memory SET embedding = NULL, embedding_sha256 = NULL WHERE episode_id = %s"
        else:
            lose = f"DELETE FROM {_QUEUE} WHERE target_id = %s"
        self.sql(lose, str(target_id))

    def check_taken_back(self, before: dict[UUID, QueueRow]) -> None:
        """Hold a crash to its price: a started row keeps its charge and goes alone, or dies of it; another one only moves."""
        for target_id, was in before.items():
            now = stored_row(self.sql, target_id)
            is_started = was.started_at is not None
            state = "dead" if is_started and was.retry_count == ATTEMPTS else "pending"
            expected = (state, was.retry_count, was.solo or is_started)
            assert (now.state, now.retry_count, now.solo) == expected, f"crashed: {was} became {now}"

    def check_now(self, accepted: int, deleted: int) -> None:
        """Raise AssertionError unless what must always hold does; so many episodes were accepted and deleted."""
        breaches = self.sql(_BREACH)
        assert not breaches, breaches
        identity = self.services.integrity.identity()
        assert identity.drift == 0
        assert (identity.accepted, identity.deleted) == (accepted, deleted)
        assert identity.processing <= MOST_IN_FLIGHT, "the window is overfull"

    def check_record(self) -> None:
        """Raise AssertionError unless every change since `empty` is one that the queue's specification allows."""
        found = violations(read(self.sql), ATTEMPTS)
        assert not found, "\n".join(found)
        assert untallied(self.sql) == (0, 0), "rows done and rows dead that were not counted"
