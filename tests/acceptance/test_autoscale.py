"""Workers come with a backlog and go after it, on a stack of its own, started as an operator starts it in the background."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.stack import control, leftovers
from app.stack.layout import PROJECT_ROOT, Layout
from app.stack.secret_files import write_missing
from tests.acceptance.conftest import free_port

BATCH = 500
EPISODES = 3 * BATCH
PATIENCE_SECONDS = 60.0
SCALING = {
    "WORKER_REPLICAS": "1",
    "WORKER_MIN": "1",
    "WORKER_MAX": "2",
    "AUTOSCALE_DRAIN_MINUTES": "0.01",
    "AUTOSCALE_UP_SECONDS": "0.5",
    # Longer than a worker takes to load its model, so that the second one is heard from even if the first drains the queue alone.
    "AUTOSCALE_DOWN_SECONDS": "10",
    "HEARTBEAT_SECONDS": "1",
}


class DetachedStack:
    """`stack up --detach` on folders and ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder / "data", secrets_dir=folder / "secrets", port=free_port(), flower_port=free_port())
        write_missing(self.settings)
        named = {name.upper(): str(getattr(self.settings, name)) for name in self.settings.model_fields_set}
        self._environment = {**os.environ, **SCALING, **named}

    def run(self, *arguments: str) -> str:
        """Run a command of the command line and return its output."""
        command = [sys.executable, "-m", "app", *arguments]
        done = subprocess.run(command, cwd=PROJECT_ROOT, env=self._environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def client(self) -> httpx.Client:
        headers = {"X-API-Key": self.settings.secret("admin_api_key"), "X-Agent-Id": "scale"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.settings.port}", headers=headers, timeout=30, trust_env=False)

    def worker_states(self) -> dict[str, str]:
        """Return the state of each worker program, as `stack status` shows it."""
        return {process.name: process.state for process in control.status(self.settings).processes if process.name.startswith("worker_")}


@contextmanager
def detached_stack() -> Iterator[DetachedStack]:
    folder = Path(tempfile.mkdtemp(prefix="nexus-autoscale-"))
    stack = DetachedStack(folder)
    try:
        stack.run("stack", "up", "--detach")
        yield stack
    finally:
        control.stop(stack.settings, lambda _: None)
        leftovers.stop_all(Layout(stack.settings.data_dir.resolve()).stack_id)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stack() -> Iterator[DetachedStack]:
    with detached_stack() as started:
        yield started


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.2)


def test_second_worker_comes_with_the_backlog_and_goes_after_it(stack: DetachedStack) -> None:
    assert stack.worker_states() == {"worker_1": "RUNNING", "worker_2": "STOPPED"}
    with stack.client() as client:

        def queue() -> Any:
            return client.get("/queue").raise_for_status().json()

        receipts: list[dict[str, Any]] = []
        for start in range(0, EPISODES, BATCH):
            items = [{"content": _text(number)} for number in range(start, start + BATCH)]
            receipts += client.post("/memory/actions", json={"items": items}).raise_for_status().json()["items"]
        wait_until(lambda: stack.worker_states()["worker_2"] == "RUNNING", "a second worker runs")
        wait_until(lambda: len(queue()["workers"]) == 2, "the second worker reports itself")
        metrics = client.get("/metrics").text
        assert "embeddings_workers_alive 2.0" in metrics
        wait_until(lambda: queue()["pending"] == queue()["processing"] == 0, "the backlog is gone")
        wait_until(lambda: stack.worker_states() == {"worker_1": "RUNNING", "worker_2": "STOPPED"}, "the second worker goes")
        wait_until(lambda: len(queue()["workers"]) == 1, "the second worker took its leave")
        found = queue()
        assert (found["done"], found["dead"], found["advice"]["workers_advised"]) == (EPISODES, 0, 1)
        assert client.get("/integrity").json()["drift"] == 0
        verdicts = [
            client.post("/integrity/verify", json={"receipts": receipts[start : start + BATCH]}).json()["summary"]
            for start in range(0, EPISODES, BATCH)
        ]
        assert verdicts == [{"searchable": BATCH}] * (EPISODES // BATCH)
        assert client.get("/health").json()["components"]["worker"] == {"status": "healthy", "detail": "1 alive", "latency_ms": None}
    log = (stack.settings.data_dir / "logs" / "stack.log").read_text()
    assert "workers: 1 -> 2 (" in log
    assert "workers: 2 -> 1 (nothing is due" in log
    assert "stopped" in stack.run("stack", "status")
    assert json.loads(stack.run("queue", "advise", "--json"))["workers_advised"] == 1


def _text(number: int) -> str:
    """Return a sentence that no other episode has, long enough that a backlog lasts."""
    return f"Reading {number} of the flow meter in basin {number % 7} was {number * 3} litres, and " + "the valve was left as it was. " * 4
