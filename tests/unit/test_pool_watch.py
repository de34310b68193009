"""A worker's parent looks after its children every second."""

from collections.abc import Callable
from types import SimpleNamespace

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
