"""One batch from start to finish: charge and read, encode with no connection held, write vectors and finish in one transaction."""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from uuid import UUID

import numpy as np
import structlog
from numpy.typing import NDArray
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from app.cache.lists import ListCache
from app.config import Settings
from app.db import Database
from app.embedding import repository
from app.embedding.chunking import Chunk, Chunker, pool
from app.embedding.encoder import Encoder, EncodingFault
from app.embedding.models import ActiveModel, ChunkVector, Embedded
from app.errors import ConfigurationError, DatabaseUnavailable
from app.queue import repository as queue_repository
from app.queue.models import TargetKind, WorkItem

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of a batch's rows: counts of those finished, failed, and no longer ours (changed, deleted or delivered twice)."""

    done: int = 0
    failed: int = 0
    lost: int = 0


class EmbeddingService:
    """Embeds batches that a dispatcher claimed.

    Args:
        database: Logged in as nexus_worker.
        encoder: The loaded model.
        cache: To void the lists of agents whose vectors are ready, and to ask for more work.
        settings: Attempts and times.

    Raises:
        ConfigurationError: The encoder is not the model that the database expects.
    """

    def __init__(self, database: Database, encoder: Encoder, cache: ListCache, settings: Settings) -> None:
        self._database = database
        self._encoder = encoder
        self._cache = cache
        self._settings = settings
        self._chunker = Chunker(encoder.tokenizer, min(settings.chunk_tokens, encoder.max_tokens), settings.chunk_overlap_tokens)
        self.model = self._expected_model()
        self.precision = encoder.precision
        self.items_done = 0

    def _expected_model(self) -> ActiveModel:
        with self._database.transaction() as connection:
            model = repository.active_model(connection)
        if model is None:
            raise ConfigurationError("the database names no active embedding model; run `python -m app db migrate`")
        if (model.fingerprint, model.dimensions) != (self._encoder.fingerprint, self._encoder.dimensions):
            raise ConfigurationError(
                f"the database expects vectors of {model.name} ({model.dimensions} dimensions, weights {model.fingerprint[:12]}),"
                f" and this process loaded {self._encoder.name} ({self._encoder.dimensions} dimensions, weights"
                f" {self._encoder.fingerprint[:12]}): set EMBEDDING_MODEL to the model that the database expects"
            )
        return model

    def process(self, kind: TargetKind, target_ids: Sequence[UUID], token: UUID) -> BatchOutcome:
        """Embed those rows of a batch that the token still holds.

        A row is never left behind: it is done, waits for its next attempt, is dead, or its lease will run out.

        Raises:
            DatabaseUnavailable: PostgreSQL was gone for longer than a lease; the rows come back by themselves.
        """
        items = self._start(kind, target_ids, token)
        if not items:
            return BatchOutcome(lost=len(target_ids))
        ids = [item.target_id for item in items]
        with self._renewing(kind, ids, token):
            try:
                embedded, faults = self._embed(items)
            except MemoryError:
                # A batch too large for this machine is not the rows' fault, unless it is a single row.
                return self._give_back_alone(kind, ids, token)
            done = self._finish(kind, embedded, token) if embedded else 0
            for reason, faulty in faults.items():
                self._fail(kind, faulty, token, reason)
        failed = sum(map(len, faults.values()))
        self.items_done += done
        self._cache.invalidate({item.agent_id for item in items}, ring=True)
        return BatchOutcome(done=done, failed=failed, lost=len(target_ids) - done - failed)

    def _start(self, kind: TargetKind, target_ids: Sequence[UUID], token: UUID) -> list[WorkItem]:
        with self._database.transaction() as connection:
            started = queue_repository.start(
                connection,
                kind,
                target_ids,
                token,
                lease_seconds=self._settings.lease_seconds,
                max_attempts=self._settings.max_attempts,
            )
            texts = repository.texts(connection, kind, list(started))
        return [
            WorkItem(target_id, agent_id, model_id, *texts[target_id], attempt, traceparent)
            for target_id, (agent_id, model_id, attempt, traceparent) in started.items()
            if target_id in texts
        ]

    def _embed(self, items: Sequence[WorkItem]) -> tuple[list[Embedded], dict[str, list[UUID]]]:
        """Return what could be embedded, and the ids of the rest by reason."""
        try:
            return self._encode(items), {}
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001
            # Whatever the model's libraries raise: the row, not the worker, is what fails.
            if len(items) == 1:
                return [], {_reason(error): [items[0].target_id]}
            return self._embed_one_by_one(items)

    def _encode(self, items: Sequence[WorkItem]) -> list[Embedded]:
        chunks = [self._chunker.chunk(item.actor, item.content) for item in items]
        vectors = self._encoder.encode_documents([chunk.text for of_item in chunks for chunk in of_item])
        if vectors.shape != (sum(map(len, chunks)), self.model.dimensions):
            raise EncodingFault("the encoder gave vectors of another shape", reason="wrong dimensions")
        ends = list(accumulate(map(len, chunks)))
        return [_assemble(item, of_item, vectors[end - len(of_item) : end]) for item, of_item, end in zip(items, chunks, ends, strict=True)]

    def _embed_one_by_one(self, items: Sequence[WorkItem]) -> tuple[list[Embedded], dict[str, list[UUID]]]:
        """Find the rows that spoil the batch, so that the others do not pay for them."""
        embedded: list[Embedded] = []
        faults: dict[str, list[UUID]] = {}
        for item in items:
            done, failed = self._embed([item])
            embedded.extend(done)
            for reason, ids in failed.items():
                faults.setdefault(reason, []).extend(ids)
        return embedded, faults

    def _finish(self, kind: TargetKind, embedded: Sequence[Embedded], token: UUID) -> int:
        """Write the vectors of the rows that are still ours, mark them done, and return how many."""
        retrying = Retrying(
            retry=retry_if_exception_type(DatabaseUnavailable),
            wait=wait_exponential(multiplier=0.2, max=2),
            stop=stop_after_delay(self._settings.lease_seconds),
            reraise=True,
        )
        # Safe to repeat: if the first commit took effect after all, the token is spent and the second changes nothing.
        finished: int = retrying(self._finish_once, kind, embedded, token)
        return finished

    def _finish_once(self, kind: TargetKind, embedded: Sequence[Embedded], token: UUID) -> int:
        by_id = {item.target_id: item for item in embedded}
        with self._database.transaction() as connection:
            free = repository.lock_targets(connection, kind, list(by_id))
            owned = queue_repository.lock_owned(connection, kind, list(free), token)
            ready = [by_id[target_id] for target_id in owned if free[target_id] == by_id[target_id].input_sha256]
            if ready:
                if kind == "episodic":
                    repository.write_chunks(connection, self.model, ready)
                repository.write_pooled(connection, kind, self.model, ready)
                queue_repository.mark_done(connection, kind, [item.target_id for item in ready], token)
            left = list(by_id.keys() - {item.target_id for item in ready})
            if left:
                # Held by a client just now, or changed under us: back without a charge. Rows no longer ours do not match.
                queue_repository.refund(connection, kind, left, token, delay_seconds=1.0)
        return len(ready)

    def _fail(self, kind: TargetKind, ids: Sequence[UUID], token: UUID, reason: str) -> None:
        with self._database.transaction() as connection:
            states = queue_repository.fail(
                connection,
                kind,
                ids,
                token,
                error=reason,
                solo=False,
                max_attempts=self._settings.max_attempts,
                retry_base_seconds=self._settings.retry_base_seconds,
                retry_max_seconds=self._settings.retry_max_seconds,
            )
        _log.warning(
            "embedding_failed",
            error=reason,
            rows=[str(target_id) for target_id in ids][:20],
            dead=sum(state == "dead" for state in states.values()),
            action="retried by itself until it is dead; then GET /memory/episodic/{id} shows the error",
        )

    def _give_back_alone(self, kind: TargetKind, ids: Sequence[UUID], token: UUID) -> BatchOutcome:
        if len(ids) == 1:
            self._fail(kind, ids, token, "out_of_memory: MemoryError")
            return BatchOutcome(failed=1)
        with self._database.transaction() as connection:
            queue_repository.refund(connection, kind, ids, token, delay_seconds=1.0, error="out_of_memory: MemoryError", solo=True)
        _log.warning("batch_out_of_memory", rows=len(ids), action="each row is tried alone; lower BATCH_CHARS if this recurs")
        return BatchOutcome(lost=len(ids))

    @contextmanager
    def _renewing(self, kind: TargetKind, ids: Sequence[UUID], token: UUID) -> Iterator[None]:
        """Renew the leases while the block runs."""
        finished = threading.Event()

        def renew() -> None:
            while not finished.wait(self._settings.heartbeat_seconds):
                try:
                    with self._database.transaction() as connection:
                        queue_repository.renew(connection, kind, ids, token, self._settings.lease_seconds)
                except DatabaseUnavailable as error:
                    _log.warning("lease_not_renewed", error=error.message, action="check PostgreSQL; the work goes on until the lease ends")

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()


def _reason(error: Exception) -> str:
    """Return a code and a class, never a text that could hold content."""
    if isinstance(error, EncodingFault):
        return f"{error.code}: {error.details.get('reason', type(error).__name__)}"[:200]
    return f"encoder_error: {type(error).__name__}"


def _assemble(item: WorkItem, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> Embedded:
    parts = tuple(ChunkVector(chunk.char_start, chunk.char_end, vector) for chunk, vector in zip(chunks, vectors, strict=True))
    pooled = pool(vectors, [part.char_end - part.char_start for part in parts])
    return Embedded(item.target_id, item.agent_id, input_sha256(item.actor, item.content), parts, pooled)


def input_sha256(actor: str | None, content: str) -> bytes:
    """Return the hash of the whole encoder input, equal to nexus_memory.encoder_input_sha256 in the database."""
    whole = content if actor is None else f"{actor}: {content}"
    return hashlib.sha256(whole.encode()).digest()


class Rate:
    """Items a second since the last question, for the heartbeat."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._items = 0

    def since_last(self, items: int) -> float:
        """Return the rate, given the running total."""
        now = time.monotonic()
        rate = (items - self._items) / max(now - self._at, 1e-6)
        self._at, self._items = now, items
        return rate
