"""The truth table of health: which failure makes what of the whole, and never green when memory is dead."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from app.config import Settings
from app.episodes import repository as episode_repository
from app.errors import DatabaseUnavailable
from app.observability.health import Component, HealthService, overall
from app.queue import repository as queue_repository
from app.queue import status as queue_status
from app.queue import workers
from app.queue.models import QueueCounts
from app.queue.workers import Alive

ALIVE = {"worker": Alive(1, 1), "dispatcher": Alive(1, 0)}
IDLE = QueueCounts(pending=0, processing=0, done=0, dead=0, oldest_pending_seconds=0.0)


class World:
    """Everything that health looks at, as it is told to be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database_up = self.redis_up = self.broker_up = self.encoder_up = True
        self.alive = dict(ALIVE)
        self.counts = IDLE
        self.problems: list[str] = []
        self.silent: dict[str, int] = {}
        self.drift_count = 0
        self.redis_version = "8.2.2"
        monkeypatch.setattr(workers, "alive", lambda *_: self.alive)
        monkeypatch.setattr(workers, "silent", lambda *_: self.silent)
        monkeypatch.setattr(episode_repository, "try_to_write", lambda _: None)
        monkeypatch.setattr(queue_status, "problems", lambda *_: self.problems)
        monkeypatch.setattr(queue_repository, "counts", lambda *_: self.counts)
        settings = Settings(broker_url="redis://user:secret@127.0.0.1:1/1")
        self.service = HealthService(settings, cast(Any, self), cast(Any, self), cast(Any, self), self.search_ready)
        self.service._broker_redis = cast(Any, Broker(self))

    @contextmanager
    def transaction(self, agent_id: str | None = None) -> Iterator[None]:
        if not self.database_up:
            raise DatabaseUnavailable("the database cannot be reached")
        yield None

    def set(self, *_: object, **__: object) -> None:
        if not self.redis_up:
            raise RedisConnectionError("secret host")

    def info(self, _: str) -> dict[str, str]:
        return {"redis_version": self.redis_version}

    def drift(self) -> int:
        return self.drift_count

    def search_ready(self) -> tuple[bool, str]:
        return self.encoder_up, "" if self.encoder_up else "still loading"


class Broker:
    """The broker's Redis."""

    def __init__(self, world: World) -> None:
        self._world = world

    def set(self, *_: object, **__: object) -> None:
        if not self._world.broker_up:
            raise RedisConnectionError("secret host")

    def info(self, _: str) -> dict[str, str]:
        raise NoPermissionError("no info for you")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_empty_system_at_rest_is_healthy(world: World) -> None:
    report = world.service.report()
    assert report.status == "healthy", report.components
    assert set(report.components) == {
        "postgresql",
        "redis",
        "broker",
        "encoder",
        "dispatcher",
        "worker",
        "queue",
        "accounting_identity",
    }
    assert world.service.ready() == (True, "")


@pytest.mark.parametrize(("version", "is_named"), [("6.2.14", True), ("8.2.2", False), ("unstable", False)])
def test_redis_behind_its_security_fixes_is_named_and_no_fault(version: str, is_named: bool, world: World) -> None:
    world.redis_version = version
    report = world.service.report()
    assert report.status == "healthy"
    assert (f"redis {version} is behind its security fixes" in report.components["redis"]["detail"]) is is_named


@pytest.mark.parametrize(
    ("changes", "component", "status"),
    [
        ({"database_up": False}, "postgresql", "unhealthy"),
        ({"redis_up": False}, "redis", "degraded"),
        ({"broker_up": False}, "broker", "degraded"),
        ({"encoder_up": False}, "encoder", "degraded"),
        ({"alive": {"dispatcher": ALIVE["dispatcher"]}}, "worker", "degraded"),
        ({"alive": {"worker": ALIVE["worker"]}}, "dispatcher", "degraded"),
        ({"alive": {}}, "worker", "degraded"),
        ({"alive": {**ALIVE, "worker": Alive(0, 0)}}, "worker", "degraded"),
        ({"problems": ["encoder_failed: RuntimeError"]}, "worker", "degraded"),
        ({"alive": {**ALIVE, "worker": Alive(3, 2)}, "problems": ["encoder_failed: RuntimeError"]}, "worker", "degraded"),
        ({"counts": QueueCounts(1001, 0, 0, 0, 1.0)}, "queue", "degraded"),
        ({"counts": QueueCounts(1000, 0, 0, 0, 1.0)}, "queue", "healthy"),
        ({"counts": QueueCounts(1, 0, 0, 0, 301.0)}, "queue", "degraded"),
        ({"counts": QueueCounts(0, 64, 10**6, 0, 0.0)}, "queue", "healthy"),
        ({"counts": QueueCounts(0, 0, 10, 1, 0.0)}, "queue", "degraded"),
        ({"drift_count": 1}, "accounting_identity", "unhealthy"),
        ({"drift_count": -1}, "accounting_identity", "unhealthy"),
    ],
)
def test_one_failure_shows_in_its_component_and_in_the_whole(changes: dict[str, Any], component: str, status: str, world: World) -> None:
    for name, value in changes.items():
        setattr(world, name, value)
    report = world.service.report()
    assert report.components[component]["status"] == status
    assert report.status == status
    assert "secret" not in str(report)


def test_paused_workers_are_counted_and_their_problem_named(world: World) -> None:
    world.alive = {**ALIVE, "worker": Alive(3, 1)}
    world.problems = ["encoder_failed: RuntimeError", "out_of_memory: MemoryError"]
    detail = world.service.report().components["worker"]["detail"]
    assert detail == "2 of 3 alive paused: encoder_failed: RuntimeError; out_of_memory: MemoryError"
    world.problems = ["encoder_failed: RuntimeError"] * 3
    detail = world.service.report().components["worker"]["detail"]
    assert detail == "all of 3 alive are paused, and new episodes get no vectors: encoder_failed: RuntimeError"


def test_degraded_never_covers_unhealthy(world: World) -> None:
    world.redis_up = world.encoder_up = False
    world.drift_count = 3
    assert world.service.report().status == "unhealthy"
    world.database_up = False
    report = world.service.report()
    assert report.status == "unhealthy"
    assert report.components["queue"]["detail"].startswith("not known")


def test_process_is_ready_only_with_database_and_model(world: World) -> None:
    world.encoder_up = False
    assert world.service.ready() == (False, "still loading")
    world.encoder_up, world.database_up = True, False
    assert world.service.ready()[0] is False


FAILURES: dict[str, dict[str, Any]] = {
    "postgresql": {"database_up": False},
    "redis": {"redis_up": False},
    "broker": {"broker_up": False},
    "encoder": {"encoder_up": False},
    "dispatcher": {"alive": {"worker": ALIVE["worker"]}},
    "worker": {"problems": ["encoder_error: RuntimeError"]},
    "queue": {"counts": QueueCounts(0, 0, 10, 1, 0.0)},
    "accounting_identity": {"drift_count": 1},
}


@pytest.mark.parametrize("number", range(2 ** len(FAILURES)))
def test_every_combination_of_failures_is_told_by_component_and_never_better_than_its_worst(number: int, world: World) -> None:
    failing = {name for bit, name in enumerate(FAILURES) if number >> bit & 1}
    for name in failing:
        for attribute, value in FAILURES[name].items():
            setattr(world, attribute, value)
    report = world.service.report()
    of_postgresql = {"dispatcher", "worker", "queue", "accounting_identity"} if "postgresql" in failing else set()
    assert {name for name, part in report.components.items() if part["status"] != "healthy"} == failing | of_postgresql
    is_dead = "postgresql" in failing or "accounting_identity" in failing
    assert report.status == ("unhealthy" if is_dead else "degraded" if failing else "healthy")


@pytest.mark.parametrize(
    ("attribute", "component", "status"),
    [("counts", "queue", "degraded"), ("alive", "postgresql", "unhealthy"), ("drift", "accounting_identity", "unhealthy")],
)
def test_defect_in_a_check_is_told_and_never_an_error_of_the_whole(
    attribute: str, component: str, status: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("secret content")

    module = {"counts": queue_repository, "alive": workers, "drift": world}[attribute]
    monkeypatch.setattr(module, attribute, fail)
    report = world.service.report()
    assert (report.components[component]["status"], report.status) == (status, status)
    assert "TypeError" in report.components[component]["detail"]
    assert "secret" not in str(report)
    assert world.service.ready()[0] is (component != "postgresql")


def test_identity_that_cannot_be_counted_in_time_leaves_the_others_known(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow() -> int:
        raise DatabaseUnavailable("the database gave up")

    monkeypatch.setattr(world, "drift", too_slow)
    report = world.service.report()
    assert report.components["accounting_identity"] == {**report.components["accounting_identity"], "status": "degraded"}
    assert report.components["worker"]["detail"] == "1 alive"
    assert report.status == "degraded"


def test_whole_is_as_bad_as_the_worst() -> None:
    assert overall({}) == "healthy"
    assert overall({"a": Component("degraded", ""), "b": Component("unhealthy", ""), "c": Component("healthy", "")}) == "unhealthy"
