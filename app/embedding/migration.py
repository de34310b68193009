"""Changes the embedding model in place: vectors of both models live side by side until every agent has the new ones.

Each step can be repeated, and a run that was killed goes on where it stood: what is done is in the database.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from sqlalchemy import TextClause, text
from sqlalchemy.exc import IntegrityError

from app.db import Database
from app.embedding import completeness
from app.embedding.copies import renew_episodes, renew_semantic
from app.embedding.encoder import Encoder
from app.embedding.model_roles import activate_target, add_model, set_target, unset_target
from app.embedding.model_schema import make_index
from app.embedding.model_status import ModelStatus, read_status, read_waiting_for
from app.embedding.models import EmbeddingModel
from app.errors import Conflict, NotFound

_log = structlog.get_logger(__name__)

_ENQUEUE_ROWS = 500
_MOST_PENDING = 2_000
"""Rows of the migration in the queue at once: enough to keep any number of workers busy, few enough to stop soon."""
_REFRESH_ROWS = 200
_DROP_ROWS = 5_000
_POLL_SECONDS = 0.5
_LOOK_SECONDS = 5.0
"""How often it is asked why rows wait."""
_ROUNDS = 2
"""The second is for agents that came during the first; those that come during it have work of both models from their first episode."""

_ENQUEUE = text("SELECT memory_system.enqueue_for_model(:agent_id, CAST(:model_id AS smallint), :most)")
_PENDING = text("SELECT count(*) FROM memory_system.embeddings_queue WHERE model_id = :model_id AND state IN ('pending', 'processing')")
_ENQUEUE_MISSING = text("SELECT memory_system.enqueue_missing(10000)")
_TRY_ALONE = text("SELECT pg_try_advisory_lock(hashtext('nexus model migration'))")
_DEAD = text("SELECT count(*) FROM memory_system.embeddings_queue WHERE model_id = :model_id AND state = 'dead'")
_FORGET_COMPLETE = text("DELETE FROM memory_system.agent_models WHERE model_id = :model_id")
_DROP_WORK = text("SELECT memory_system.drop_model_work(CAST(:model_id AS smallint), :most)")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step has come.

    Attributes:
        step: enqueue, embed, copy or drop.
        done: How much of it.
        total: Of how much; 0 while that is not known.
        detail: What else there is to say.
        waiting_for: Why rows wait for another try, with how many: what a change that does not go on is waiting for.
    """

    step: str
    done: int
    total: int
    detail: str = ""
    waiting_for: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """What there was left to do under the active model: rows enqueued anew, and one-vector copies renewed."""

    enqueued: int
    copies: int


Tell = Callable[[Progress], None]


class ModelMigration:
    """Moves every vector to another model while writes and searches go on.

    Args:
        owner: Logged in as nexus_superuser, which changes the table of models and makes the index; it sees no episode.
        worker: Logged in as nexus_worker, which enqueues, counts and copies.
        tell: Is told how far it has come.
    """

    def __init__(self, owner: Database, worker: Database, tell: Tell = lambda _: None) -> None:
        self._owner = owner
        self._worker = worker
        self._tell = tell
        self._until = completeness.Until()
        self._waiting_for: Mapping[str, int] = {}
        self._next_look = 0.0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other change of models out while the block runs.

        Raises:
            Conflict: One is running.
        """
        with self._owner.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Held by the connection, so that it ends with this process however that ends.
            connection.exec_driver_sql("SET idle_session_timeout = 0")
            if not connection.execute(_TRY_ALONE).scalar_one():
                raise Conflict("another `embedding migrate`, `rollback` or `drop` is running: stop it, or wait for its end")
            try:
                yield
            finally:
                connection.invalidate()

    def status(self) -> list[ModelStatus]:
        """Return every model that the database knows, in order of model_id."""
        with self._worker.transaction() as connection:
            return read_status(connection)

    def begin(self, encoder: Encoder, source: str) -> EmbeddingModel:
        """Make the encoder's model the target, and return it; one that is the target or the active model already is returned as it is.

        From its return on, every new or edited episode gets vectors of both models.

        Args:
            encoder: Of the model to change to, which require_sound() accepted.
            source: Where every worker and API process finds it.

        Raises:
            Conflict: The migration to another model is under way.
        """
        known = {model.fingerprint: model for model in self.status()}
        this = known.get(encoder.fingerprint)
        target = next((model for model in known.values() if model.role == "target"), None)
        if target is not None and target.fingerprint != encoder.fingerprint:
            raise Conflict(f"the migration to {target.name} is under way: finish it, or `python -m app embedding rollback`")
        if this is not None and this.role == "active":
            return this.as_model()
        model_id = this.model_id if this is not None else add_model(self._owner, encoder, source)
        make_index(self._owner, model_id, encoder.dimensions)
        if this is None or this.role == "unused":
            with self._worker.transaction() as connection:
                connection.execute(_FORGET_COMPLETE, {"model_id": model_id})
        set_target(self._owner, model_id, source)
        (status,) = [model for model in self.status() if model.model_id == model_id]
        return status.as_model()

    def embed(self, target: EmbeddingModel, rows_per_second: float | None = None, *, accepts_dead: bool = False) -> int:
        """Have the workers embed everything under the target, agent by agent, and return how many rows are dead.

        Each agent's searches change over to the target as soon as its own memories are complete.

        Args:
            target: What begin() returned.
            rows_per_second: Most rows enqueued in a second; None leaves it to the workers.
            accepts_dead: Whether an agent counts as complete though some of its memories died.
        """
        for _ in range(_ROUNDS):
            with self._worker.transaction() as connection:
                agents = completeness.incomplete_agents(connection, target.model_id)
                self._until = completeness.newest(connection)
            self._embed_agents(agents, target, rows_per_second, accepts_dead=accepts_dead)
        return int(self._ask(_DEAD, model_id=target.model_id))

    def _embed_agents(self, agents: Sequence[str], target: EmbeddingModel, rows_per_second: float | None, *, accepts_dead: bool) -> None:
        waiting: list[str] = []
        for number, agent_id in enumerate(agents, start=1):
            for _ in self._enqueue(agent_id, target, rows_per_second):
                waiting = self._complete(waiting, target, accepts_dead=accepts_dead)
            waiting.append(agent_id)
            self._tell(Progress("enqueue", number, len(agents), f"{len(agents) - len(waiting)} of {len(agents)} agents complete"))
        while waiting and (left := self._left(target)):
            waiting = self._complete(waiting, target, accepts_dead=accepts_dead)
            detail = f"{left:,} memories wait"
            self._tell(Progress("embed", len(agents) - len(waiting), len(agents), detail, self._look(target)))
            time.sleep(_POLL_SECONDS)
        self._complete(waiting, target, accepts_dead=accepts_dead)

    def _enqueue(self, agent_id: str, target: EmbeddingModel, rows_per_second: float | None) -> Iterator[int]:
        """Enqueue an agent's memories in portions, waiting while there is enough in the queue; yield the size of each."""
        portion = _ENQUEUE_ROWS if rows_per_second is None else max(1, min(_ENQUEUE_ROWS, int(rows_per_second)))
        while True:
            while (left := self._ask(_PENDING, model_id=target.model_id)) >= _MOST_PENDING:
                self._tell(Progress("embed", 0, 0, f"{left:,} rows wait", self._look(target)))
                time.sleep(_POLL_SECONDS)
            began = time.monotonic()
            parameters = {"agent_id": agent_id, "model_id": target.model_id, "most": portion}
            try:
                with self._worker.transaction() as connection:
                    enqueued = int(connection.execute(_ENQUEUE, parameters).scalar_one())
            except IntegrityError as error:
                raise Conflict(f"{target.name} is not in use any more: the migration was rolled back") from error
            if not enqueued:
                return
            if rows_per_second is not None:
                time.sleep(max(0.0, enqueued / rows_per_second - (time.monotonic() - began)))
            yield enqueued

    def _look(self, target: EmbeddingModel) -> Mapping[str, int]:
        """Return why rows wait for another try, as of a few seconds ago."""
        if time.monotonic() >= self._next_look:
            with self._worker.transaction() as connection:
                self._waiting_for = read_waiting_for(connection, target.model_id)
            self._next_look = time.monotonic() + _LOOK_SECONDS
        return self._waiting_for

    def _complete(self, agents: Sequence[str], target: EmbeddingModel, *, accepts_dead: bool) -> list[str]:
        """Let the agents change over whose memories are all embedded, and return those that are not there yet."""
        with self._worker.transaction() as connection:
            done = completeness.change_over(connection, target.model_id, agents, self._until, accepts_dead=accepts_dead)
        return [agent_id for agent_id in agents if agent_id not in done]

    def _left(self, target: EmbeddingModel) -> int:
        with self._worker.transaction() as connection:
            return completeness.pending(connection, target.model_id, self._until)

    def activate(self, target: EmbeddingModel) -> None:
        """Make the target the active model, whose work finish() ends; the old one's vectors stay, for a way back.

        Raises:
            Conflict: Some agent has a memory without work under the target, or a dead one that was not accepted.
        """
        with self._worker.transaction() as connection:
            left = completeness.unready_agents(connection, target.model_id)
        if left:
            raise Conflict(f"{len(left)} agents are not complete under {target.name}, the first is {left[0]}")
        activate_target(self._owner, target)
        _log.info("embedding_model_activated", model=target.name, version=target.version)

    def finish(self, model: EmbeddingModel) -> Finished:
        """Do what is left once the model is active: what a run that was killed left, and the one-vector copies.

        Args:
            model: The active model.
        """
        with self._worker.transaction() as connection:
            agents = completeness.agents(connection)
        enqueued = sum(sum(self._enqueue(agent_id, model, None)) for agent_id in agents)
        self._clean()
        return Finished(enqueued, self._copy(model))

    def _clean(self) -> None:
        """Let the unfinished work of models that are not in use go; beat does the same for what commits later."""
        with self._worker.transaction() as connection:
            connection.execute(_ENQUEUE_MISSING)

    def _copy(self, model: EmbeddingModel) -> int:
        """Bring the one-vector copies on the episodes' rows up to the active model, and return how many changed."""
        changed = 0
        while True:
            with self._worker.transaction() as connection:
                renewed = renew_episodes(connection, model, _REFRESH_ROWS) + renew_semantic(connection, model, _REFRESH_ROWS)
            if not renewed:
                return changed
            changed += renewed
            self._tell(Progress("copy", changed, 0))

    def rollback(self) -> ModelStatus:
        """Give up the migration under way, and return its target as it was.

        What it made is deleted, unless it was a way back: the vectors of a model that was the active one once are kept, as before it.

        Raises:
            NotFound: None is under way.
        """
        target = next((model for model in self.status() if model.role == "target"), None)
        if target is None:
            raise NotFound("no migration is under way; to go back to an earlier model: `python -m app embedding migrate --model SOURCE`")
        unset_target(self._owner)
        self._clean()
        if not target.was_active:
            self.drop(target.model_id)
        return target

    def drop(self, model_id: int) -> int:
        """Delete the vectors and the work of a model that is not in use, and return how many rows that were.

        Raises:
            Conflict: It is in use.
            NotFound: There is none of that number.
        """
        model = next((model for model in self.status() if model.model_id == model_id), None)
        if model is None:
            raise NotFound(f"there is no model {model_id}; `python -m app embedding status` lists them")
        if model.role != "unused":
            raise Conflict(f"{model.name} is the {model.role} model")
        with self._worker.transaction() as connection:
            connection.execute(_FORGET_COMPLETE, {"model_id": model_id})
        dropped = 0
        while rows := self._ask(_DROP_WORK, model_id=model_id, most=_DROP_ROWS):
            dropped += rows
            self._tell(Progress("drop", dropped, 0))
        return dropped

    def _ask(self, question: TextClause, **parameters: object) -> int:
        with self._worker.transaction() as connection:
            return int(connection.execute(question, parameters).scalar_one())
