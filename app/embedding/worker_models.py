"""The models in use as one worker has them: loaded at their first batch, each with a breaker of its own, let go when out of use."""

import math
import threading
import time
from collections.abc import Callable

import structlog

from app.config import Settings
from app.embedding.assembly import Assembler
from app.embedding.breaker import Breaker, reason_of
from app.embedding.models import EmbeddingModel, ModelsInUse
from app.errors import NexusError

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
"""How often a worker at work asks which models are in use."""

RETRY_SECONDS = 30.0
"""How long a model that this worker cannot use is left alone; another worker may have it."""

Assemble = Callable[[EmbeddingModel], Assembler]
"""Loads a model; takes seconds."""


class ModelUnusable(Exception):
    """This worker cannot use the model now; its text is a code and a class."""


class WorkerModel:
    """One model in use.

    Attributes:
        model: As the database names it now.
        breaker: Whether its encoder works.
    """

    def __init__(self, model: EmbeddingModel, breaker: Breaker) -> None:
        self.model = model
        self.breaker = breaker
        self._assembler: Assembler | None = None
        self._refused = ""
        self._retry_at = -math.inf

    @property
    def is_loaded(self) -> bool:
        """Whether its encoder is in memory."""
        return self._assembler is not None

    @property
    def precision(self) -> str | None:
        """What its encoder computes in; None while it is not loaded."""
        return self._assembler.encoder.precision if self._assembler else None

    def load(self, assemble: Assemble) -> Assembler:
        """Return what makes its vectors, loaded at the first call.

        Raises:
            NexusError: This machine has not the model, or it cannot be built.
        """
        if self._assembler is None:
            self._assembler = assemble(self.model)
        return self._assembler

    def ready(self, assemble: Assemble, *, is_active: bool) -> Assembler:
        """Return what makes its vectors.

        Args:
            assemble: Loads it, if that is needed.
            is_active: Whether live work rests on it. Only the target of a migration must pass a probe before its first batch.

        Raises:
            ModelUnusable: Its breaker is open, or it could not be loaded or failed its first probe less than RETRY_SECONDS ago.
        """
        if (broken := self.breaker.reason) is not None:
            raise ModelUnusable(broken)
        if self._assembler is not None:
            return self._assembler
        if time.monotonic() < self._retry_at:
            raise ModelUnusable(self._refused)
        try:
            loaded = assemble(self.model)
        except NexusError as error:
            raise self._refuse(f"model_missing: {error.code}", error.message, "install it on this machine") from error
        except Exception as error:
            # Whatever the model's libraries raise, want of memory too: not once more for every batch.
            raise self._refuse(reason_of(error), "it cannot be loaded", "look at its files and this machine's memory") from error
        if not is_active and (reason := Breaker.probe(loaded.encoder.encode_documents)) is not None:
            raise self._refuse(reason, "it fails for every text", "mend its files or `python -m app embedding rollback`")
        self._assembler = loaded
        return loaded

    def _refuse(self, reason: str, problem: str, action: str) -> ModelUnusable:
        self._refused, self._retry_at = reason, time.monotonic() + RETRY_SECONDS
        _log.error("model_not_loaded", model=self.model.name, code=reason, error=problem, next_try_in_seconds=RETRY_SECONDS, action=action)
        return ModelUnusable(reason)


class WorkerModels:
    """The active model and, during a migration, its target.

    Args:
        read: Asks the database which models are in use.
        settings: The breakers' pauses.
        when_changed: Called after the worker's problem changed.
        when_hopeless: Called when the active model's encoder stays broken; never for a target's, whose fault is nobody's concern
            but the migration's.

    Raises:
        NexusError: What `read` raises.
    """

    def __init__(
        self, read: Callable[[], ModelsInUse], settings: Settings, when_changed: Callable[[], None], when_hopeless: Callable[[], None]
    ) -> None:
        self._read = read
        self._settings = settings
        self._when_changed = when_changed
        self._when_hopeless = when_hopeless
        self._looking = threading.Lock()
        self._models: dict[int, WorkerModel] = {}
        self._look()

    @property
    def active(self) -> WorkerModel:
        """The model that was active at the last look."""
        return next(iter(self._models.values()))

    @property
    def problem(self) -> str | None:
        """Why the worker takes no work, which only the active model can cause; None when it does."""
        return self.active.breaker.problem

    def find(self, model_id: int) -> WorkerModel | None:
        """Return the model of that number, or None when it is not in use, after a look where that is due.

        Raises:
            NexusError: What `read` raises.
        """
        self.look()
        if model_id not in self._models:
            self.look(0)
        return self._models.get(model_id)

    def look(self, max_age_seconds: float = LOOK_SECONDS) -> None:
        """Ask which models are in use, unless that was done so lately, and let go of the others.

        Raises:
            NexusError: What `read` raises.
        """
        before = self.problem
        # The heartbeat looks as well as the work: an older answer must not overwrite a newer one.
        with self._looking:
            if time.monotonic() - self._looked_at < max_age_seconds:
                return
            self._look()
        if self.problem != before:
            self._when_changed()

    def _look(self) -> None:
        in_use = self._read()
        self._looked_at = time.monotonic()
        let_go = [held for model_id, held in self._models.items() if in_use.find(model_id) is None]
        # The active one first. Replaced as a whole, for it is read without the lock.
        self._models = {model.model_id: self._held(model) for model in (in_use.active, in_use.target) if model is not None}
        for held in let_go:
            held.breaker.stop()
            _log.info("model_let_go", model=held.model.name)

    def _held(self, model: EmbeddingModel) -> WorkerModel:
        held = self._models.get(model.model_id) or WorkerModel(model, self._breaker(model))
        # A migration that was given up and begun again may name another folder.
        held.model = model
        return held

    def _breaker(self, model: EmbeddingModel) -> Breaker:
        breaker = Breaker(model.name, self._settings.breaker_base_seconds, self._settings.breaker_max_seconds)

        def if_active(hook: Callable[[], None]) -> None:
            if breaker is self.active.breaker:
                hook()

        breaker.when_changed = lambda: if_active(self._when_changed)
        breaker.when_hopeless = lambda: if_active(self._when_hopeless)
        return breaker
