"""One batch from start to finish: charge and read, encode with no connection held, write vectors and finish in one transaction."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy import Connection
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from app.cache.lists import ListCache
from app.config import Settings
from app.db import Database
from app.embedding import repository
from app.embedding.assembly import Assembler, InputKey, key_of
from app.embedding.breaker import Breaker, reason_of
from app.embedding.encoder import Encoder, require_model
from app.embedding.models import ChunkVector, Embedded, EmbeddingModel, ModelsInUse
from app.embedding.rate import Rate
from app.embedding.traces import traced
from app.embedding.worker_models import LOOK_SECONDS, RETRY_SECONDS, ModelUnusable, WorkerModel, WorkerModels
from app.errors import ConfigurationError, DatabaseUnavailable
from app.queue import repository as queue_repository
from app.queue.models import Claim, WorkItem

_log = structlog.get_logger(__name__)

_REFUND_SECONDS = 1.0

LoadEncoder = Callable[[EmbeddingModel], Encoder]
"""Loads a model that the database names, and proves that it is that one."""


class _ModelBroken(Exception):
    """The model fails for every text, so no row is to blame."""


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
        load: Loads encoders: of the active model now, of a migration's target when its first batch comes.
        cache: To void the lists of agents whose vectors are ready, and to ask for more work.
        settings: Attempts and times.

    Attributes:
        rate: How fast it is while busy.
        when_changed: Called after `problem` changed.
        when_hopeless: Called when the active model's encoder stays broken: a process that cannot recover is better replaced.

    Raises:
        NexusError: The active model is not on this machine or cannot be loaded, or PostgreSQL cannot be reached.
    """

    def __init__(self, database: Database, load: LoadEncoder, cache: ListCache, settings: Settings) -> None:
        self._database = database
        self._load = load
        self._cache = cache
        self._settings = settings
        self.rate = Rate()
        self.when_changed: Callable[[], None] = lambda: None
        self.when_hopeless: Callable[[], None] = lambda: None
        # Who listens is known only after this: looked up at each call.
        self._models = WorkerModels(self._read_models, settings, lambda: self.when_changed(), lambda: self.when_hopeless())  # noqa: PLW0108
        self._models.active.load(self._assemble)

    @property
    def model(self) -> EmbeddingModel:
        """The active model, as of the last look."""
        return self._models.active.model

    @property
    def precision(self) -> str | None:
        """What the active model's encoder computes in; None while this process has not loaded it."""
        return self._models.active.precision

    @property
    def breaker(self) -> Breaker:
        """Whether the active model's encoder works."""
        return self._models.active.breaker

    @property
    def problem(self) -> str | None:
        """Why the worker takes no work; None when it does."""
        return self._models.problem

    def look(self, max_age_seconds: float = LOOK_SECONDS) -> None:
        """Learn which models are in use, unless that was done so lately, and free the others. Batches do it; a heartbeat should too.

        Raises:
            NexusError: The database names no active model, or cannot be reached.
        """
        self._models.look(max_age_seconds)

    def _read_models(self) -> ModelsInUse:
        with self._database.transaction() as connection:
            models = repository.models_in_use(connection)
        if models is None:
            raise ConfigurationError("the database names no active embedding model; run `python -m app db migrate`")
        return models

    def _assemble(self, model: EmbeddingModel) -> Assembler:
        encoder = require_model(self._load(model), model)
        return Assembler(model, encoder, self._settings.chunk_tokens, self._settings.chunk_overlap_tokens)

    def process(self, claim: Claim) -> BatchOutcome:
        """Embed those rows of a batch that the token still holds.

        A row is never left behind: it is done, waits for its next attempt, is dead, or its lease will run out.

        Raises:
            DatabaseUnavailable: PostgreSQL was gone for longer than a lease; the rows come back by themselves.
        """
        try:
            return self._process(claim)
        except MemoryError:
            # Outside of encoding, where it is dealt with. Left to Celery it would end the whole worker.
            _log.error("out_of_memory", rows=len(claim.target_ids), action="the rows come back when their lease ends; lower BATCH_CHARS")
            return BatchOutcome(lost=len(claim.target_ids))

    def _process(self, claim: Claim) -> BatchOutcome:
        model = self._models.find(claim.model_id)
        if model is None:
            # Rolled back: its work goes with it, and is claimed no more.
            return BatchOutcome(lost=len(claim.target_ids))
        try:
            assembler = model.ready(self._assemble, is_active=self._is_active(model))
        except ModelUnusable as unusable:
            return self._decline(claim, model, str(unusable))
        began = time.monotonic()
        items, known = self._start(claim)
        if not items:
            return BatchOutcome(lost=len(claim.target_ids))
        started = claim.only(item.target_id for item in items)
        with traced(started, items) as trace, self._renewing(started):
            try:
                embedded, faults = self._embed(assembler, model.breaker, items, known)
            except MemoryError:
                # A batch too large for this machine is not the rows' fault.
                action = "each row is tried alone; lower BATCH_CHARS if this recurs"
                self._refund(started, "out_of_memory: MemoryError", _REFUND_SECONDS, action)
                return BatchOutcome(lost=len(claim.target_ids))
            except _ModelBroken as broken:
                if self._is_active(model):
                    self._refund(started, str(broken), _REFUND_SECONDS, "the worker rests until its encoder works again")
                else:
                    self._refund(started, str(broken), RETRY_SECONDS, "the migration rests; live work goes on with the active model")
                return BatchOutcome(lost=len(claim.target_ids))
            done = self._finish(assembler.model, started, embedded) if embedded else []
            trace.done(done)
            for reason, faulty in faults.items():
                self._fail(started.only(faulty), reason)
                trace.failed(faulty, reason)
        failed = sum(map(len, faults.values()))
        embedded_ids = set(done)
        self.rate.add((len(item.content) for item in items if item.target_id in embedded_ids), time.monotonic() - began)
        self._cache.invalidate({item.agent_id for item in items}, ring=True)
        return BatchOutcome(done=len(done), failed=failed, lost=len(claim.target_ids) - len(done) - failed)

    def _is_active(self, model: WorkerModel) -> bool:
        return model is self._models.active

    def _decline(self, claim: Claim, model: WorkerModel, reason: str) -> BatchOutcome:
        """Let other workers have the rows.

        Only a broken active model keeps this worker from the next message, until its encoder may be well: a migration's target must
        not hold up live work.
        """
        # What is loaded is declined only while its breaker is open.
        pauses = self._is_active(model) and model.is_loaded
        with self._database.transaction() as connection:
            if pauses:
                queue_repository.give_back(connection, claim)
            else:
                queue_repository.refund(connection, claim, delay_seconds=RETRY_SECONDS, error=reason)
        if pauses:
            model.breaker.wait_closed(self._settings.heartbeat_seconds)
        return BatchOutcome(lost=len(claim.target_ids))

    def _start(self, claim: Claim) -> tuple[list[WorkItem], dict[InputKey, list[ChunkVector]]]:
        """Charge the rows and return them with their texts, and the vectors that equal inputs of their agents have already."""
        with self._database.transaction() as connection:
            started = queue_repository.start(
                connection, claim, lease_seconds=self._settings.lease_seconds, max_attempts=self._settings.max_attempts
            )
            texts = repository.texts(connection, claim.target_kind, list(started))
            items = [
                WorkItem(target_id, agent_id, *texts[target_id], attempt, solo, traceparent)
                for target_id, (agent_id, attempt, solo, traceparent) in started.items()
                if target_id in texts
            ]
            keys = {key_of(item) for item in items} if claim.target_kind == "episodic" else set()
            known = repository.known_chunks(connection, claim.model_id, keys) if keys else {}
        return items, known

    def _embed(
        self, assembler: Assembler, breaker: Breaker, items: Sequence[WorkItem], known: dict[InputKey, list[ChunkVector]]
    ) -> tuple[list[Embedded], dict[str, list[UUID]]]:
        """Return what could be embedded, and the ids of the rest by reason.

        Raises:
            MemoryError: The batch is too large for this machine.
            _ModelBroken: The encoder fails for every text.
        """
        encode = assembler.encoder.encode_documents
        # A row under suspicion is judged between two probes: what breaks after a good one, it has broken.
        is_judged = len(items) == 1 and items[0].solo
        if is_judged and (reason := breaker.probe(encode)) is not None:
            breaker.open(reason, encode)
            raise _ModelBroken(reason)
        try:
            return assembler.embed(items, known), {}
        except Exception as error:
            # Whatever the model's libraries raise.
            if len(items) > 1:
                if isinstance(error, MemoryError):
                    raise
                return self._embed_one_by_one(assembler, breaker, items, known)
            reason = breaker.probe(encode)
            if reason is not None:
                breaker.open(reason, encode)
                if not is_judged:
                    raise _ModelBroken(reason) from error
            return [], {reason_of(error): [items[0].target_id]}

    def _embed_one_by_one(
        self, assembler: Assembler, breaker: Breaker, items: Sequence[WorkItem], known: dict[InputKey, list[ChunkVector]]
    ) -> tuple[list[Embedded], dict[str, list[UUID]]]:
        """Find the rows that spoil the batch, so that the others do not pay for them."""
        embedded: list[Embedded] = []
        faults: dict[str, list[UUID]] = {}
        for item in items:
            done, failed = self._embed(assembler, breaker, [item], known)
            embedded.extend(done)
            for reason, ids in failed.items():
                faults.setdefault(reason, []).extend(ids)
        return embedded, faults

    def _finish(self, model: EmbeddingModel, claim: Claim, embedded: Sequence[Embedded]) -> list[UUID]:
        """Write the vectors of the rows that are still ours, mark them done, and return their ids."""
        retrying = Retrying(
            retry=retry_if_exception_type(DatabaseUnavailable),
            wait=wait_exponential(multiplier=0.2, max=2),
            stop=stop_after_delay(self._settings.task_time_limit_seconds / 2),
            reraise=True,
        )
        # Safe to repeat: if the first commit took effect after all, the token is spent and the second changes nothing.
        finished: list[UUID] = retrying(self._finish_once, model, claim, embedded)
        return finished

    def _finish_once(self, model: EmbeddingModel, claim: Claim, embedded: Sequence[Embedded]) -> list[UUID]:
        by_id = {item.target_id: item for item in embedded}
        with self._database.transaction() as connection:
            free = repository.lock_targets(connection, claim.target_kind, list(by_id))
            owned = queue_repository.lock_owned(connection, claim.only(free))
            ready = [by_id[target_id] for target_id in owned if free[target_id] == by_id[target_id].input_sha256]
            if ready:
                self._write(connection, model, claim, ready)
            left = by_id.keys() - {item.target_id for item in ready}
            if left:
                # Held by a client just now, or changed under us: back without a charge. Rows no longer ours do not match.
                queue_repository.refund(connection, claim.only(left), delay_seconds=_REFUND_SECONDS)
        return [item.target_id for item in ready]

    def _write(self, connection: Connection, model: EmbeddingModel, claim: Claim, ready: Sequence[Embedded]) -> None:
        if claim.target_kind == "episodic":
            repository.write_chunks(connection, model, ready)
        else:
            repository.write_semantic_vectors(connection, model, ready)
        repository.write_pooled(connection, claim.target_kind, model, ready)
        queue_repository.mark_done(connection, claim.only(item.target_id for item in ready))

    def _fail(self, claim: Claim, reason: str) -> None:
        with self._database.transaction() as connection:
            states = queue_repository.fail(
                connection,
                claim,
                error=reason,
                max_attempts=self._settings.max_attempts,
                retry_base_seconds=self._settings.retry_base_seconds,
                retry_max_seconds=self._settings.retry_max_seconds,
            )
        _log.warning(
            "embedding_failed",
            error=reason,
            rows=_few(claim.target_ids),
            dead=sum(state == "dead" for state in states.values()),
            action="retried by itself until it is dead; then `python -m app queue dead` shows it by cause",
        )

    def _refund(self, claim: Claim, reason: str, delay_seconds: float, action: str) -> None:
        """Put rows back uncharged, to be tried alone."""
        with self._database.transaction() as connection:
            queue_repository.refund(connection, claim, delay_seconds=delay_seconds, error=reason, solo=True)
        _log.warning("batch_refunded", error=reason, rows=len(claim.target_ids), action=action)

    @contextmanager
    def _renewing(self, claim: Claim) -> Iterator[None]:
        """Renew the leases while the block runs."""
        finished = threading.Event()

        def renew() -> None:
            while not finished.wait(self._settings.heartbeat_seconds):
                try:
                    with self._database.transaction() as connection:
                        queue_repository.renew(connection, claim, self._settings.lease_seconds)
                except DatabaseUnavailable as error:
                    _log.warning("lease_not_renewed", error=error.message, action="check PostgreSQL; the work goes on until the lease ends")

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()


def _few(ids: Collection[UUID]) -> list[str]:
    return [str(target_id) for target_id in ids][:20]
