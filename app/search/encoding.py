"""Query vectors: the model, loaded beside the requests, and a memory of the queries asked lately."""

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import structlog
from numpy.typing import NDArray

from app.embedding.encoder import Encoder
from app.embedding.models import ActiveModel
from app.errors import ConfigurationError, DatabaseUnavailable, EncoderUnavailable, NexusError

_log = structlog.get_logger(__name__)

_REMEMBERED_QUERIES = 2048
_RETRY_SECONDS = 2.0


class QueryEncoder:
    """Encodes queries with a model that loads in the background, so that writes are served from the first second.

    Args:
        load: Loads the encoder; takes seconds.
        expected_model: Asks the database which model the stored vectors are of.
    """

    def __init__(self, load: Callable[[], Encoder], expected_model: Callable[[], ActiveModel | None]) -> None:
        self._load = load
        self._expected_model = expected_model
        self._loaded = threading.Event()
        self._started = threading.Lock()
        self._encoder: Encoder | None = None
        self._model: ActiveModel | None = None
        self._problem = "the embedding model is still loading"
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._vectors_lock = threading.Lock()

    def start_loading(self) -> None:
        """Begin to load, once; returns at once."""
        if self._started.acquire(blocking=False):
            threading.Thread(target=self._load_until_loaded, name="encoder", daemon=True).start()

    def _load_until_loaded(self) -> None:
        pause = threading.Event()
        while not self._loaded.is_set():
            try:
                self._encoder = self._encoder or self._load()
                self._model = self._matching_model(self._encoder)
                self._loaded.set()
            except DatabaseUnavailable as error:
                self._problem = error.message
                pause.wait(_RETRY_SECONDS)
            except NexusError as error:
                self._problem = error.message
                _log.critical("encoder_unusable", code=error.code, error=error.message, action="search by meaning stays off until restart")
                return

    def _matching_model(self, encoder: Encoder) -> ActiveModel:
        model = self._expected_model()
        if model is None:
            raise ConfigurationError("the database names no active embedding model; run `python -m app db migrate`")
        if (model.fingerprint, model.dimensions) != (encoder.fingerprint, encoder.dimensions):
            raise ConfigurationError(
                f"the stored vectors are of {model.name} (weights {model.fingerprint[:12]}), and this process loaded {encoder.name}"
                f" (weights {encoder.fingerprint[:12]}): set EMBEDDING_MODEL to the model that the database expects"
            )
        return model

    def ready(self) -> tuple[bool, str]:
        """Return whether queries can be encoded, and if not, why."""
        return (True, "") if self._loaded.is_set() else (False, self._problem)

    def encode(self, query: str, patience_seconds: float = 10.0) -> tuple[NDArray[np.float32], int]:
        """Return (unit vector of shape (dimensions,), model_id).

        Args:
            query: The question.
            patience_seconds: How long to wait for a model that is still loading.

        Raises:
            EncoderUnavailable: The model is not loaded.
        """
        self.start_loading()
        if not self._loaded.wait(patience_seconds) or self._encoder is None or self._model is None:
            raise EncoderUnavailable(f"{self._problem}; search with mode keyword works meanwhile")
        with self._vectors_lock:
            vector = self._vectors.get(query)
            if vector is not None:
                self._vectors.move_to_end(query)
                return vector, self._model.model_id
        vector = self._encoder.encode_query(query)
        with self._vectors_lock:
            self._vectors[query] = vector
            if len(self._vectors) > _REMEMBERED_QUERIES:
                self._vectors.popitem(last=False)
        return vector, self._model.model_id
