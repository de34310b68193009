"""An optional cross-encoder, which reads the query and a result together and orders the best results anew."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import structlog
from numpy.typing import NDArray

from app.embedding.weights import find_folder, go_offline
from app.search.query import SearchHit

_log = structlog.get_logger(__name__)

Judge = Callable[[Sequence[tuple[str, str]]], NDArray[np.float32]]
"""From pairs of query and text to how well each text answers, shape (n,), in any range."""


class Reranker:
    """Orders results by a model that is loaded beside the requests; until then, and where it fails, their order stays.

    Args:
        model: Folder, or name in the local model cache, of a cross-encoder with one output.
        candidates: How many of the best results it reads.
        load: Returns what judges; takes seconds.
    """

    def __init__(self, model: str, candidates: int, load: Callable[[str], Judge] | None = None) -> None:
        self.candidates = candidates
        self._model = model
        self._load = load or load_cross_encoder
        self._judge: Judge | None = None

    def start_loading(self) -> None:
        """Begin to load; returns at once."""
        threading.Thread(target=self._load_once, name="reranker", daemon=True).start()

    def _load_once(self) -> None:
        try:
            self._judge = self._load(self._model)
        except Exception as error:  # noqa: BLE001 - whatever a foreign model raises, searches must go on without it
            action = "set RERANKER_MODEL to the folder of a cross-encoder with one output, or to nothing, and start the API again"
            _log.error("reranker_not_loaded", model=self._model, error=type(error).__name__, reason=str(error)[:300], action=action)

    def rerank(self, query: str, hits: Sequence[SearchHit]) -> list[SearchHit]:
        """Return the results with the best of them in the judged order, before the others.

        Scores stay in [0, 1]: the judged ones lie in the upper half, the others in the lower. `score_breakdown` says how each was judged.

        Args:
            query: What was asked.
            hits: Best first.
        """
        judge = self._judge
        if judge is None or not hits:
            return list(hits)
        read, rest = hits[: self.candidates], hits[self.candidates :]
        try:
            marks = _sound(judge([(query, hit.content) for hit in read]))
        except (RuntimeError, ValueError, MemoryError) as error:
            _log.warning("reranking_failed", error=type(error).__name__, action="the order by meaning and words was kept")
            return list(hits)
        judged = _to_unit(marks)
        # By the marks themselves: in the unit interval great ones fall together.
        order = np.argsort(-marks, kind="stable")
        ranked = [_placed(read[place], 0.5 + judged[place] / 2, judged[place]) for place in order]
        return [*ranked, *(_placed(hit, hit.score / 2, None) for hit in rest)]


def _placed(hit: SearchHit, score: float, judged: float | None) -> SearchHit:
    return replace(hit, score=round(score, 6), score_breakdown=hit.score_breakdown | {"reranked": judged})


def _sound(marks: NDArray[np.float32]) -> NDArray[np.float64]:
    values = np.asarray(marks, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("the model gave no sound marks")
    return values


def _to_unit(marks: NDArray[np.float64]) -> list[float]:
    """Return marks in [0, 1]: as they are where the model's are, else by the logistic function."""
    is_unit = marks.min() >= 0 and marks.max() <= 1
    return [round(float(mark), 6) for mark in (marks if is_unit else 1 / (1 + np.exp(-np.clip(marks, -50, 50))))]


def load_cross_encoder(model: str) -> Judge:
    """Return what judges by a cross-encoder of this machine; nothing is downloaded.

    Raises:
        ConfigurationError: It is not here.
        ValueError: It has more outputs than one.
    """
    go_offline()
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(find_folder(model)), device="cpu", local_files_only=True)
    if encoder.num_labels != 1:
        raise ValueError(f"it has {encoder.num_labels} outputs, and one is needed")

    def judge(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return np.asarray(encoder.predict(list(pairs), show_progress_bar=False), dtype=np.float32)

    judge([("warm", "up")])
    _log.info("reranker_loaded", model=model)
    return judge
