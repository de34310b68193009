"""The model changes under a live stack: another model's files, real workers, searches and writes all the while, and back again."""

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.numpy import load_file, save_file

from app.embedding.weights import WEIGHTS_FILE, find_weights
from app.stack.layout import PROJECT_ROOT
from app.stack.programs import QUEUES
from tests.acceptance.conftest import RunningStack
from tests.acceptance.test_main_path import search, wait_until_embedded
from tests.factories.processes import wait_until

AGENTS = ("model-anna", "model-boris")
FACTS = [f"Reading {n}: the flow meter in basin {n % 5} showed {n * 3} litres." for n in range(60)]


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is none of the known ones: the shipped weights, a little of the first layer taken away."""
    folder = tmp_path_factory.mktemp("models") / "other-minilm"
    shutil.copytree(find_weights("").folder, folder)
    weights = dict(load_file(folder / WEIGHTS_FILE))
    name = next(name for name in sorted(weights) if name.endswith("layer.0.attention.self.query.weight"))
    weights[name] = weights[name] * 0.98
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    return folder


def environment(stack: RunningStack) -> dict[str, str]:
    return {"DATA_DIR": str(stack.settings.data_dir), "SECRETS_DIR": str(stack.settings.secrets_dir), "PATH": "/usr/bin:/bin"}


def embedding(stack: RunningStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "embedding", *arguments]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=environment(stack), check=False, capture_output=True, text=True, timeout=120)


class Using:
    """Agents that search and write for as long as the block runs; `problems` tells what they did not find."""

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._use)
        self.problems: list[Any] = []
        self.searches = 0

    def _use(self) -> None:
        with self._stack.client() as client:
            while not self._stop.is_set():
                for agent in AGENTS:
                    self._search(client, agent)

    def _search(self, client: httpx.Client, agent: str) -> None:
        answer = client.post("/memory/search", json={"agent_id": agent, "query": FACTS[7], "mode": "vector", "limit": 1})
        self.searches += 1
        found = answer.json().get("results")
        if answer.status_code != 200 or not found or found[0]["content"] != FACTS[7] or found[0]["score_breakdown"]["cosine"] < 0.999:
            self.problems.append(answer.text[:300])

    def __enter__(self) -> "Using":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def corpus(stack: RunningStack) -> None:
    for agent in AGENTS:
        with stack.client(agent) as client:
            client.post("/memory/actions", json={"items": [{"content": fact} for fact in FACTS]}).raise_for_status()
            wait_until_embedded(client)


def active(stack: RunningStack) -> str:
    ((version,),) = [line.split()[2:3] for line in embedding(stack, "status").stdout.splitlines() if " active " in line]
    return version


@pytest.mark.usefixtures("corpus")
def test_interrupted_change_says_how_things_stand_and_is_given_up(stack: RunningStack, other_model: Path) -> None:
    command = [sys.executable, "-m", "app", "embedding", "migrate", "--model", str(other_model), "--rate", "1"]
    migrating = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment(stack), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: " target " in embedding(stack, "status").stdout, 60, "the target is set")
    migrating.send_signal(signal.SIGINT)
    _, said = migrating.communicate(timeout=30)
    assert migrating.returncode == 130
    assert said.strip() == (
        "interrupted: the target stays set: run this again to go on, or `python -m app embedding rollback` to give the change up"
    )
    assert embedding(stack, "rollback").returncode == 0


@pytest.mark.usefixtures("corpus")
def test_model_changes_and_changes_back_while_agents_search(stack: RunningStack, other_model: Path) -> None:
    with Using(stack) as using:
        done = embedding(stack, "migrate", "--model", str(other_model))
        assert done.returncode == 0, done.stderr
        with stack.client(AGENTS[0]) as client:
            client.post("/memory/action", json={"content": "A heron waits by the weir."}).raise_for_status()
            wait_until_embedded(client)
            assert search(client, "a bird near a river dam", mode="vector")[0]["content"] == "A heron waits by the weir."
        assert active(stack).startswith("other-minilm-384")
        back = embedding(stack, "migrate", "--model", "")
        assert back.returncode == 0, back.stderr
    assert using.problems == []
    assert using.searches > 20
    assert active(stack) == "miniLM-384-chunked@v3"
    with stack.client(AGENTS[0]) as client:
        assert search(client, "a bird near a river dam", mode="vector")[0]["content"] == "A heron waits by the weir."
        identity = client.get("/integrity").json()
        assert identity["drift"] == 0


def test_change_that_is_made_already_is_finished(stack: RunningStack) -> None:
    done = embedding(stack, "migrate", "--model", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "all-MiniLM-L6-v2 is the active model; nothing was left to do\n", "")


@pytest.fixture
def unsound(other_model: Path, tmp_path: Path) -> Path:
    """A model with one weight that is no number."""
    folder = tmp_path / "unsound"
    shutil.copytree(other_model, folder)
    weights = dict(load_file(folder / WEIGHTS_FILE))
    name = next(name for name in sorted(weights) if name.endswith("layer.0.attention.self.query.weight"))
    weights[name] = weights[name] * float("nan")
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    return folder


def test_wrong_orders_are_refused_in_one_line(stack: RunningStack, tmp_path: Path, unsound: Path) -> None:
    for arguments, said in (
        (("migrate", "--model", str(tmp_path)), "cannot read"),
        (("migrate", "--model", str(unsound)), "cannot encode a plain sentence (encoding_fault"),
        (("migrate", "--model", "no/such-model"), "never downloaded"),
        (("migrate", "--model", "/nonexist"), "embedding model '/nonexist' is no folder"),
        (("rollback",), "no migration is under way"),
        (("drop", "1"), "is the active model"),
        (("drop", "99"), "there is no model 99"),
    ):
        refused = embedding(stack, *arguments)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_worker_of_another_model_refuses_to_start_and_says_why(stack: RunningStack, other_model: Path) -> None:
    settings = stack.settings
    environment = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "BROKER_URL": settings.broker_url,
        "SECRETS_DIR": str(settings.secrets_dir),
        "EMBEDDING_MODEL": str(other_model),
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-m", "celery", "-A", "tasks.celery_app", "worker", "--concurrency", "1", "-n", "other@%h", "-Q", QUEUES]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    (refusal,) = [line for line in (done.stdout + done.stderr).splitlines() if "worker_refuses_to_start" in line]
    assert "the database expects vectors of all-MiniLM-L6-v2" in refusal
    assert "set EMBEDDING_MODEL" in refusal
    assert "Traceback" not in done.stdout + done.stderr
