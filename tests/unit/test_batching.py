"""Queries that come in together are encoded together, each gets its own vector or its own error, and nobody waits for ever."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.search.batching import MOST, QueryBatcher


class Encoder:
    """Gives a query's length as its vector; the first pass lasts until it is let go on."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.began, self.may_go_on = threading.Event(), threading.Event()
        self.error: BaseException | None = None

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.passes.append(list(texts))
        if len(self.passes) == 1:
            self.began.set()
            assert self.may_go_on.wait(10)
        if self.error is not None:
            raise self.error
        if "poison" in texts:
            raise ValueError("poison")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def outcome(batcher: QueryBatcher, query: str) -> Any:
    try:
        return float(batcher.encode(query)[0])
    except BaseException as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


def asked_together(encoder: Encoder, queries: Sequence[str], first_error: BaseException | None = None) -> list[Any]:
    """Return the outcomes of a first query, "first", and of those that came in while it was encoded."""
    batcher: Any = QueryBatcher(encoder)  # type: ignore[arg-type]
    with ThreadPoolExecutor(1 + len(queries)) as threads:
        futures = [threads.submit(outcome, batcher, "first")]
        assert encoder.began.wait(10)
        futures += [threads.submit(outcome, batcher, query) for query in queries]
        while len(batcher._waiting) < len(queries):
            pass
        encoder.error = first_error
        encoder.may_go_on.set()
        return [future.result(10) for future in futures]


def test_what_came_in_meanwhile_is_encoded_in_one_pass() -> None:
    encoder = Encoder()
    assert asked_together(encoder, ["a", "bb", "ccc"]) == [5.0, 1.0, 2.0, 3.0]
    assert [sorted(texts) for texts in encoder.passes] == [["first"], ["a", "bb", "ccc"]]


def test_one_pass_takes_no_more_than_it_may() -> None:
    encoder = Encoder()
    queries = ["q" * n for n in range(1, 2 * MOST + 2)]
    assert asked_together(encoder, queries)[1:] == [float(len(query)) for query in queries]
    assert [len(texts) for texts in encoder.passes] == [1, MOST, MOST, 1]


def test_query_that_cannot_be_encoded_fails_alone() -> None:
    encoder = Encoder()
    assert asked_together(encoder, ["a", "poison", "ccc"]) == [5.0, 1.0, "ValueError: poison", 3.0]


def test_as_many_passes_run_at_once_as_there_are_turns() -> None:
    """The second pass goes by the first, which stands still; whoever comes then waits for neither."""
    encoder = Encoder()
    batcher = QueryBatcher(encoder, passes=2)  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(outcome, batcher, "first")
        assert encoder.began.wait(10)
        assert (outcome(batcher, "a"), outcome(batcher, "bb")) == (1.0, 2.0)
        assert not first.done()
        encoder.may_go_on.set()
        assert first.result(10) == 5.0


def test_hundreds_of_queries_of_many_threads_each_get_their_own_vector() -> None:
    encoder = Encoder()
    encoder.may_go_on.set()
    batcher = QueryBatcher(encoder, passes=3)  # type: ignore[arg-type]
    queries = ["q" * (1 + n % 90) for n in range(900)]
    with ThreadPoolExecutor(24) as threads:
        found = list(threads.map(lambda query: outcome(batcher, query), queries))
    assert found == [float(len(query)) for query in queries]
    assert sum(map(len, encoder.passes)) == 900


def test_thread_that_is_ended_in_its_pass_takes_nobody_along() -> None:
    encoder = Encoder()
    batcher = QueryBatcher(encoder)  # type: ignore[arg-type]
    encoder.may_go_on.set()
    encoder.error = SystemExit("time is up")
    assert outcome(batcher, "first") == "SystemExit: time is up"
    encoder.error = None
    assert outcome(batcher, "second") == 6.0


def test_those_whose_query_the_ended_thread_took_along_are_told() -> None:
    encoder = Encoder()
    encoder.may_go_on.set()
    batcher: Any = QueryBatcher(encoder)  # type: ignore[arg-type]
    assert outcome(batcher, "warm up") == 7.0
    with batcher._turns, ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(outcome, batcher, query) for query in ("a", "bb")]
        while len(batcher._waiting) < 2:
            pass
        encoder.error = SystemExit("time is up")
        batcher._turns.release()
        try:
            found = sorted(future.result(10) for future in futures)
        finally:
            batcher._turns.acquire()
    assert found == ["RuntimeError: the pass was broken off: SystemExit", "SystemExit: time is up"]
