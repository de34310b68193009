"""A dispatcher and a worker in one hand, one step at a time."""

from collections.abc import Iterable
from uuid import UUID

from app.bootstrap import Services, WorkerServices
from app.db import Database
from app.embedding.service import BatchOutcome
from app.queue.lanes import LowWater
from app.queue.models import Batch
from app.queue.workers import WorkerIdentity
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import new_episode

_MAKE_DUE = "UPDATE memory_system.embeddings_queue SET due_at = now() WHERE state = 'pending' AND due_at > now()"


class _NoLowWater(LowWater):
    """Looks from the start at each claim, as a dispatcher does within a second."""

    def begin(self) -> bool:
        return super().begin() or True


class Workshop:
    """Does what dispatcher and worker processes do, with their services and their role, in the test's own thread.

    Args:
        services: Logged in as nexus_worker.
        database: The same role's pool.
        encoder: The encoder inside the services.
    """

    def __init__(self, services: WorkerServices, database: Database, encoder: FakeEncoder) -> None:
        self.services = services
        self.queue = services.queue
        self.queue._low_water = _NoLowWater()
        self.embedding = services.embedding
        self.database = database
        self.encoder = encoder

    def announce(self, slots: int = 8, worker_id: str = "worker@test:1", problem: str | None = None) -> None:
        """Heartbeat as a worker with so many slots, so that there is room to claim."""
        self.queue.beat(WorkerIdentity(worker_id, "worker", "test", 1, slots, self.embedding.model.model_id, "fp32"), problem=problem)

    def claim(self) -> list[Batch]:
        """Claim as a dispatcher, with a worker at hand."""
        self.announce()
        return self.queue.claim()

    def process(self, batch: Batch) -> BatchOutcome:
        """Embed a batch as a worker."""
        return self.embedding.process(batch.claim)

    def make_due(self) -> None:
        """End every wait for a next attempt."""
        with self.database.transaction() as connection:
            connection.exec_driver_sql(_MAKE_DUE)

    def drain(self, *, waits: bool = False) -> int:
        """Embed until nothing is due and return how many rows were done.

        Args:
            waits: Whether rows that wait for another attempt are tried at once too, until they are done or dead.
        """
        done = 0
        while True:
            if waits:
                self.make_due()
            batches = self.claim()
            if not batches:
                return done
            done += sum(self.process(batch).done for batch in batches)


def store(services: Services, count: int, **fields: float) -> list[UUID]:
    """Store so many episodes of alice's, all or none, and return their ids in order."""
    receipts = services.episodes.store_many("alice", [new_episode(f"episode {n}", **fields) for n in range(count)])
    return [receipt.episode_id for receipt in receipts]


def claimed(batches: Iterable[Batch]) -> list[UUID]:
    """Return what batches were claimed for."""
    return [target_id for batch in batches for target_id in batch.claim.target_ids]
