"""A worker's parent looks after its children every second."""

from collections.abc import Callable
from types import SimpleNamespace

from structlog.testing import capture_logs

from tasks.pool_watch import PoolWatch


def test_worker_has_its_pool_looked_after_every_second() -> None:
    calls: list[tuple[float, Callable[[], None]]] = []
    looked: list[str] = []
    worker = SimpleNamespace(pool=SimpleNamespace(maintain_pool=lambda: looked.append("looked")), pool_watch=None)
    hub = SimpleNamespace(call_repeatedly=lambda seconds, action: calls.append((seconds, action)))
    PoolWatch(worker).register_with_event_loop(worker, hub)
    ((seconds, action),) = calls
    action()
    assert (seconds, looked) == (1.0, ["looked"])


def test_child_that_cannot_be_started_is_tried_again_and_is_no_loss_of_the_broker() -> None:
    calls: list[Callable[[], None]] = []

    def fail() -> None:
        raise BlockingIOError("no process left")

    worker = SimpleNamespace(pool=SimpleNamespace(maintain_pool=fail), pool_watch=None)
    PoolWatch(worker).register_with_event_loop(worker, SimpleNamespace(call_repeatedly=lambda _, action: calls.append(action)))
    with capture_logs() as lines:
        calls[0]()
    assert [line["event"] for line in lines] == ["child_not_started"]
