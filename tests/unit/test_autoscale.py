"""Scaling of workers: never outside the bounds, never within the waits, and what the supervisor is told."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Settings
from app.errors import DatabaseUnavailable
from app.queue.advice import Advice, Backlog, advise
from app.stack.autoscaler import Autoscaler
from app.stack.layout import Layout
from app.stack.programs import first_workers, service_programs, worker_names
from app.stack.supervisor import ProcessInfo
from app.stack.worker_scaling import WorkerScaling

UP, DOWN = 30.0, 300.0
_MUCH = Backlog(10**6, 10**6)
ADVICE = st.one_of(st.none(), st.integers(0, 12))
STEPS = st.lists(st.tuples(st.floats(0, 200), ADVICE), max_size=80)


@given(initial=st.integers(0, 12), low=st.integers(1, 6), room=st.integers(0, 6), steps=STEPS)
def test_wanted_stays_within_bounds_and_keeps_every_wait(initial: int, low: int, room: int, steps: list[tuple[float, int | None]]) -> None:
    high = low + room
    scaler = Autoscaler(initial, low, high, UP, DOWN)
    now, changed_at = 0.0, 0.0
    heard: list[tuple[float, int | None]] = []
    for pause, advised in steps:
        now += pause
        before = scaler.wanted
        assert low <= before <= high
        heard.append((now, advised))
        changed = scaler.consult(now, advised)
        assert changed == (scaler.wanted != before)
        if not changed:
            continue
        grew = scaler.wanted > before
        wait = UP if grew else DOWN
        assert advised is not None
        assert scaler.wanted == (max(low, min(high, advised)) if grew else before - 1)
        # No flapping: everything heard during the wait said the same, and the last change is at least a wait ago.
        assert now - changed_at >= wait
        since = [said for at, said in heard if at >= now - wait]
        assert all(said is not None and (said > before if grew else said < before) for said in since)
        changed_at = now


@given(initial=st.integers(1, 8), steps=STEPS)
def test_equal_bounds_never_change(initial: int, steps: list[tuple[float, int | None]]) -> None:
    scaler, now = Autoscaler(initial, 3, 3, 0.0, 0.0), 0.0
    for pause, advised in steps:
        now += pause
        assert not scaler.consult(now, advised)
        assert scaler.wanted == 3


def test_more_come_at_once_and_fewer_one_by_one() -> None:
    scaler = Autoscaler(1, 1, 5, UP, DOWN)
    assert not scaler.consult(0, 9)
    assert not scaler.consult(29, 9)
    assert scaler.consult(30, 4)
    assert scaler.wanted == 4
    changes = [at for at in range(31, 1000) if scaler.consult(at, 1)]
    assert changes == [331, 632, 933]
    assert scaler.wanted == 1


@pytest.mark.parametrize("interruption", [None, 1])
def test_one_other_reading_starts_the_wait_anew(interruption: int | None) -> None:
    scaler = Autoscaler(1, 1, 2, UP, DOWN)
    for at, advised in ((0, 2), (20, 2), (25, interruption), (26, 2), (55, 2)):
        assert not scaler.consult(at, advised)
    assert scaler.consult(56, 2)


@pytest.mark.parametrize(
    ("replicas", "low", "high", "bounds", "first"),
    [
        (2, 0, 0, (2, 2), 2),
        (2, 1, 4, (1, 4), 2),
        (2, 0, 4, (2, 4), 2),
        (2, 1, 0, (1, 2), 2),
        (2, 3, 4, (3, 4), 3),
        (5, 1, 2, (1, 2), 2),
        (2, 3, 0, (3, 3), 3),
        (5, 0, 2, (2, 2), 2),
    ],
)
def test_bounds_follow_from_the_settings(replicas: int, low: int, high: int, bounds: tuple[int, int], first: int, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, worker_replicas=replicas, worker_min=low, worker_max=high)
    assert settings.worker_bounds == bounds
    assert first_workers(settings) == [f"worker_{number}" for number in range(1, first + 1)]
    programs = [program for program in service_programs(settings, Layout(tmp_path)) if program.name.startswith("worker_")]
    assert [program.name for program in programs] == worker_names(settings)
    assert [program.name for program in programs if program.starts_with_stack] == first_workers(settings)
    assert {program.stop_signal for program in programs} == {"TERM"}
    cores = len(os.sched_getaffinity(0))
    assert {program.environment["OMP_NUM_THREADS"] for program in programs} == {str(max(1, cores // bounds[1]))}


@dataclass
class Supervised:
    """Programs that start at once and stop when they are told to; remembers the calls."""

    states: dict[str, str]
    calls: list[str] = field(default_factory=list)

    def start(self, name: str) -> None:
        self.calls.append(f"start {name}")
        self.states[name] = "RUNNING"

    def stop(self, name: str) -> None:
        self.calls.append(f"stop {name}")
        self.states[name] = "STOPPING"

    def processes(self) -> list[ProcessInfo]:
        return [ProcessInfo(name, state, 1, 0.0, 0) for name, state in self.states.items()]


class Scaled:
    """Two to four workers on a clock and with advice in the test's hands."""

    def __init__(self) -> None:
        settings = Settings(worker_replicas=2, worker_min=1, worker_max=4, autoscale_up_seconds=10, autoscale_down_seconds=20)
        states = dict.fromkeys(("api", "worker_1", "worker_2"), "RUNNING") | dict.fromkeys(("worker_3", "worker_4"), "STOPPED")
        self.programs = Supervised(states)
        self.lines: list[str] = []
        self.now = 0.0
        self.advice: Advice | None = advise(Backlog(0, 0), [], 5.0)
        self.scaling = WorkerScaling(settings, self.programs, self.lines.append, self.read, lambda: self.now)

    def read(self) -> Advice:
        if self.advice is None:
            raise DatabaseUnavailable("the database cannot be reached")
        return self.advice

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            self.scaling.step(self.programs.processes())


def test_backlog_starts_workers_and_its_end_stops_them_one_by_one() -> None:
    stack = Scaled()
    stack.advice = advise(Backlog(12_000, 12_000), [10.0, 10.0], 5.0)
    stack.run(15)
    assert stack.programs.calls == ["start worker_3", "start worker_4"]
    assert stack.lines == [f"workers: 2 -> 4 ({stack.advice.reason})"]
    stack.advice = advise(Backlog(0, 0), [10.0] * 4, 5.0)
    stack.run(90)
    assert stack.programs.calls[2:] == ["stop worker_4", "stop worker_3", "stop worker_2"]
    assert stack.lines[-1] == "workers: 2 -> 1 (nothing is due; one worker is enough)"
    assert stack.programs.states["worker_1"] == "RUNNING"


def test_worker_that_is_still_stopping_is_started_again_once_it_has_stopped() -> None:
    stack = Scaled()
    stack.run(22)
    assert stack.programs.calls == ["stop worker_2"]
    stack.advice = advise(Backlog(12_000, 12_000), [20.0], 5.0)
    stack.run(14)
    assert stack.programs.calls == ["stop worker_2"]
    stack.programs.states["worker_2"] = "STOPPED"
    stack.run(4)
    assert stack.programs.calls == ["stop worker_2", "start worker_2"]


@pytest.mark.parametrize(
    "advice",
    [None, advise(_MUCH, [None, None], 5.0), advise(_MUCH, [], 5.0)],
    ids=["no database", "no rate", "none"],
)
def test_what_is_not_known_changes_nothing(advice: Advice | None) -> None:
    stack = Scaled()
    stack.advice = advice
    stack.run(1000)
    assert stack.programs.calls == stack.lines == []


def test_fixed_number_of_workers_asks_no_database() -> None:
    def read() -> Advice:
        raise AssertionError

    programs = Supervised({"worker_1": "STOPPED"})
    WorkerScaling(Settings(), programs, print, read).step(programs.processes())
    assert programs.calls == []
