"""Queries of several threads encoded in one pass: five together cost the cores about half of what five alone do."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.embedding.encoder import Encoder

MOST = 16
"""Queries of one pass: a late one waits no longer than this many take."""


@dataclass(eq=False, slots=True)
class _Job:
    """A query, and what became of it."""

    query: str
    is_taken: bool = False
    outcome: NDArray[np.float32] | BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def end(self, outcome: NDArray[np.float32] | BaseException) -> None:
        """Let its thread go on."""
        self.outcome = outcome
        self.done.set()


class QueryBatcher:
    """Encodes at once what came in while the passes before ran; safe to call from several threads.

    Nobody waits for company: a lone query is encoded at once. In a batch the padding may move a vector by less than its rounding does.

    Args:
        encoder: Of one model.
        passes: How many run at once, each on one core.
    """

    def __init__(self, encoder: Encoder, passes: int = 1) -> None:
        self._encoder = encoder
        self._waiting: list[_Job] = []
        self._waiting_lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(passes)

    def encode(self, query: str) -> NDArray[np.float32]:
        """Return the unit vector of a query, shape (dimensions,).

        Raises:
            Exception: What encoding this query alone raises; another's failure is not shared.
        """
        job = _Job(query)
        with self._waiting_lock:
            self._waiting.append(job)
        with self._turns:
            # Whoever had a turn before may have taken this query along.
            while not job.is_taken:
                if taken := self._take():
                    self._run(taken)
        job.done.wait()
        if isinstance(job.outcome, np.ndarray):
            return job.outcome
        raise job.outcome or RuntimeError("the query was not encoded")

    def _take(self) -> list[_Job]:
        with self._waiting_lock:
            taken, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            for job in taken:
                job.is_taken = True
            return taken

    def _run(self, jobs: Sequence[_Job]) -> None:
        try:
            vectors = self._encoder.encode_queries([job.query for job in jobs])
            answers = list(zip(jobs, vectors, strict=True))
        except Exception as error:  # noqa: BLE001
            # It is raised where the query came from; which of several it was, each shows alone.
            if len(jobs) == 1:
                jobs[0].end(error)
                return
            for job in jobs:
                self._run([job])
        except BaseException as error:
            # The thread is being ended; those whose queries it took along must not wait for ever.
            for job in jobs:
                if job.outcome is None:
                    job.end(RuntimeError(f"the pass was broken off: {type(error).__name__}"))
            raise
        else:
            for job, vector in answers:
                job.end(vector.copy())
