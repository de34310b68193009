"""A worker's child notices that its main process stands still."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest

from tasks import parent
from tasks.parent import Parent
from tests.factories.processes import wait_until

_TICKS = "import time\nwhile True: time.sleep(0.01)"


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process that passes for this one's parent, and turns as often as a worker's event loop."""
    process = subprocess.Popen([sys.executable, "-c", _TICKS])
    monkeypatch.setattr(os, "getppid", lambda: process.pid)
    monkeypatch.setattr(parent, "_STILL_SECONDS", 1.0)
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the child sees, in the test's hand."""
    now = [0.0]
    monkeypatch.setattr(parent, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def wait_turn(pid: int) -> None:
    """Return once the process has had its turn again."""
    turns = psutil.Process(pid).num_ctx_switches()
    wait_until(lambda: psutil.Process(pid).num_ctx_switches() != turns, 5, "the process has no turn")


def test_parent_that_turns_is_well_and_one_that_is_stopped_is_not(ticking: subprocess.Popen[bytes], clock: list[float]) -> None:
    watched = Parent()
    for _ in range(3):
        clock[0] += 5
        wait_turn(ticking.pid)
        assert watched.problem is None
    ticking.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, ticking.pid, os.WSTOPPED | os.WNOWAIT)
    assert watched.problem is None, "one look says nothing yet"
    clock[0] += 0.5
    assert watched.problem is None
    clock[0] += 0.5
    assert watched.problem == "worker_deaf: its main process stands still"
    ticking.send_signal(signal.SIGCONT)
    wait_turn(ticking.pid)
    assert watched.problem is None


def test_parent_that_is_gone_is_named(ticking: subprocess.Popen[bytes]) -> None:
    watched = Parent()
    ticking.kill()
    ticking.wait()
    assert watched.problem == "worker_deaf: its main process is gone"
