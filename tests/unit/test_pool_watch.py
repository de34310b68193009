"""A worker's parent looks after its children every second."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from tasks.pool_watch import PoolWatch


class Watched:
    """A worker with a pool, and a hub whose clock is the test's.

    Attributes:
        children: The pool's processes.
        looked: How often the pool was looked after.
        fails: Raised by it, when given.
    """

    def __init__(self, *children: int) -> None:
        self.children = list(children)
        self.looked = 0
        self.fails: OSError | None = None
        self.pool = self
        self.pool_watch = None
        self._calls: list[tuple[float, Callable[[], None]]] = []
        hub = SimpleNamespace(call_repeatedly=lambda seconds, action: self._calls.append((seconds, action)))
        PoolWatch(self).register_with_event_loop(self, hub)

    def maintain_pool(self) -> None:
        self.looked += 1
        if self.fails is not None:
            raise self.fails

    @property
    def info(self) -> dict[str, list[int]]:
        return {"processes": self.children}

    def tick(self) -> float:
        """Let the period pass, and return how long it is."""
        ((seconds, action),) = self._calls
        action()
        return seconds


@pytest.fixture
def buried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """By which threads dead processes were forgotten."""
    names: list[str] = []
    monkeypatch.setattr(PoolWatch, "when_gone", [lambda: names.append(threading.current_thread().name)])
    return names


def test_worker_has_its_pool_looked_after_every_second(buried: list[str]) -> None:
    worker = Watched(1, 2)
    assert (worker.tick(), worker.tick(), worker.looked) == (1.0, 1.0, 2)
    assert buried == []


def test_child_that_cannot_be_started_is_tried_again_and_is_no_loss_of_the_broker(buried: list[str]) -> None:
    worker = Watched()
    worker.fails = BlockingIOError("no process left")
    with capture_logs() as lines:
        worker.tick()
    assert [line["event"] for line in lines] == ["child_not_started"]


def test_child_that_is_gone_is_forgotten_once_and_not_by_the_event_loop(buried: list[str]) -> None:
    worker = Watched(1, 2)
    worker.tick()
    worker.children = [2, 3]
    for _ in range(3):
        worker.tick()
    for thread in threading.enumerate():
        if thread.name == "burial":
            thread.join(5)
    assert buried == ["burial"]
