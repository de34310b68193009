"""Query vectors: the models in use, loaded beside the requests, and a memory of the queries asked lately."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import structlog
from numpy.typing import NDArray

from app.embedding.encoder import Encoder, require_model
from app.embedding.models import EmbeddingModel, ModelsInUse
from app.errors import DatabaseUnavailable, EncoderUnavailable, NexusError
from app.search.batching import QueryBatcher

_log = structlog.get_logger(__name__)

_REMEMBERED_QUERIES = 2048
_RETRY_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""How often a process asks which models are in use; a migration of the model is noticed no later."""


class QueryEncoder:
    """Encodes queries with models that load in the background, so that writes are served from the first second.

    Args:
        load: Loads the encoder of a model; takes seconds.
        read_models: Asks the database which models are in use; None when it names none.
        look_seconds: How often it is asked.
        passes: How many forward passes of a model run at once.
    """

    def __init__(
        self,
        load: Callable[[EmbeddingModel], Encoder],
        read_models: Callable[[], ModelsInUse | None],
        look_seconds: float = LOOK_SECONDS,
        passes: int = 1,
    ) -> None:
        self._load = load
        self._read_models = read_models
        self._look_seconds = look_seconds
        self._passes = passes
        self._loaded = threading.Event()
        self._started = threading.Lock()
        self._stopped = threading.Event()
        self._models: ModelsInUse | None = None
        self._encoders: dict[int, QueryBatcher] = {}
        self._refused: dict[int, float] = {}
        self._problem = "the embedding model is still loading"
        self._vectors: OrderedDict[tuple[int, str], NDArray[np.float32]] = OrderedDict()
        self._vectors_lock = threading.Lock()

    def start_loading(self) -> None:
        """Begin to load, once; returns at once."""
        if self._started.acquire(blocking=False):
            threading.Thread(target=self._keep_up, name="encoder", daemon=True).start()

    def stop(self) -> None:
        """Look after the models no longer; what is loaded can still be used."""
        self._stopped.set()

    def _keep_up(self) -> None:
        """Load what is in use, until stopped."""
        while not self._stopped.is_set():
            try:
                self._look()
            except DatabaseUnavailable as error:
                self._problem = error.message
            except Exception as error:  # noqa: BLE001
                # Whatever it was, this thread must live: without it a change of model would go unnoticed.
                self._problem = f"the embedding model cannot be looked after: {type(error).__name__}"
                _log.error("encoder_watch_failed", error=type(error).__name__, retry_in_seconds=self._look_seconds)
            self._stopped.wait(self._look_seconds)

    def _look(self) -> None:
        models = self._read_models()
        if models is None:
            self._problem = "the database names no active embedding model; run `python -m app db migrate`"
            return
        for model in (models.active, models.target):
            if model is not None and model.model_id not in self._encoders and self._may_try(model):
                self._load_one(model)
        if models.active.model_id in self._encoders:
            self._models = models
            self._encoders = {number: encoder for number, encoder in self._encoders.items() if models.find(number)}
            self._loaded.set()
        else:
            # Vectors of the model before get no company any more: an answer from them would be silently incomplete.
            self._loaded.clear()

    def _may_try(self, model: EmbeddingModel) -> bool:
        return time.monotonic() - self._refused.get(model.model_id, -math.inf) >= _RETRY_SECONDS

    def _load_one(self, model: EmbeddingModel) -> None:
        try:
            self._encoders[model.model_id] = QueryBatcher(require_model(self._load(model), model), self._passes)
        except NexusError as error:
            self._problem = error.message
            self._refused[model.model_id] = time.monotonic()
            _log.critical(
                "encoder_unusable",
                model=model.name,
                code=error.code,
                error=error.message,
                action="install it on this machine; it is tried again every minute",
            )

    def ready(self) -> tuple[bool, str]:
        """Return whether queries can be encoded, and if not, why."""
        return (True, "") if self._loaded.is_set() else (False, self._problem)

    def models(self, patience_seconds: float = 10.0) -> ModelsInUse:
        """Return the models whose queries can be encoded; the target is absent until it is loaded here.

        Args:
            patience_seconds: How long to wait for a model that is still loading.

        Raises:
            EncoderUnavailable: The model is not loaded.
        """
        self.start_loading()
        if not self._loaded.wait(patience_seconds) or self._models is None:
            raise EncoderUnavailable(f"{self._problem}; search with mode keyword works meanwhile")
        models = self._models
        if models.target is not None and models.target.model_id not in self._encoders:
            return ModelsInUse(models.active)
        return models

    def encode(self, query: str, model: EmbeddingModel) -> NDArray[np.float32]:
        """Return the unit vector of a query, shape (dimensions,), under a model that models() named."""
        key = (model.model_id, query)
        with self._vectors_lock:
            vector = self._vectors.get(key)
            if vector is not None:
                self._vectors.move_to_end(key)
                return vector
        encoder = self._encoders.get(model.model_id)
        if encoder is None:
            raise EncoderUnavailable(f"{model.name} was taken out of use just now; ask again")
        vector = encoder.encode(query)
        with self._vectors_lock:
            self._vectors[key] = vector
            if len(self._vectors) > _REMEMBERED_QUERIES:
                self._vectors.popitem(last=False)
        return vector
