"""What is sent is consumed, what is scheduled is registered, what a task is sent it takes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.queue.packing import EMBED_QUEUES
from app.stack.layout import Layout
from app.stack.programs import QUEUES, service_programs
from app.stack.secret_files import write_missing
from beat_schedule import BEAT_SCHEDULE
from tasks.names import CONSUMED_QUEUES, EMBED_BATCH, QUEUE_UPKEEP

ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """
import inspect, json
from tasks.celery_app import app
app.loader.import_default_modules()
print(json.dumps({
    "tasks": {name: list(inspect.signature(task.run).parameters) for name, task in app.tasks.items() if not name.startswith("celery.")},
    "scheduled": sorted(entry["task"] for entry in app.conf.beat_schedule.values()),
    "steps": sorted(str(step) for step in app.steps["worker"]),
    "conf": {name: app.conf[name] for name in (
        "accept_content", "task_serializer", "task_acks_late", "task_reject_on_worker_lost", "worker_prefetch_multiplier",
        "task_soft_time_limit", "result_backend", "task_ignore_result", "worker_proc_alive_timeout", "task_default_queue")},
}))
"""


@pytest.fixture(scope="module")
def celery(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Celery knows, asked in a process of its own: its application reads the settings when it is imported."""
    folder = tmp_path_factory.mktemp("celery")
    write_missing(Settings(secrets_dir=folder))
    environment = os.environ | {"SECRETS_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_worker_has_the_step_that_notices_dead_children(celery: dict[str, Any]) -> None:
    assert celery["steps"] == ["tasks.pool_watch:PoolWatch"]


def test_every_scheduled_task_is_registered_and_takes_what_it_is_sent(celery: dict[str, Any]) -> None:
    assert celery["scheduled"] == sorted(str(entry["task"]) for entry in BEAT_SCHEDULE.values())
    for name, entry in BEAT_SCHEDULE.items():
        assert entry["task"] in celery["tasks"], name
        kwargs: Any = entry["kwargs"]
        assert sorted(kwargs) == sorted(celery["tasks"][entry["task"]]), name
        # The tick is claimed by its period, so it must be the schedule's.
        assert kwargs["period_seconds"] == entry["schedule"], name


def test_embedding_task_is_registered_under_the_dispatchers_name(celery: dict[str, Any]) -> None:
    assert celery["tasks"][EMBED_BATCH] == ["target_kind", "model_id", "target_ids", "token", "limit_seconds"]


def test_every_queue_that_is_sent_to_is_consumed_and_no_other() -> None:
    options: list[Any] = [entry["options"] for entry in BEAT_SCHEDULE.values()]
    published = {*EMBED_QUEUES, QUEUE_UPKEEP, *(option["queue"] for option in options)}
    assert published == set(CONSUMED_QUEUES) == set(QUEUES.split(","))


def test_every_worker_program_consumes_every_queue(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, worker_replicas=3)
    workers = [program for program in service_programs(settings, Layout(tmp_path)) if program.name.startswith("worker")]
    assert len(workers) == 3
    for program in workers:
        command = list(program.command)
        assert command[command.index("-Q") + 1] == ",".join(CONSUMED_QUEUES)


def test_celery_is_configured_for_losable_messages(celery: dict[str, Any]) -> None:
    assert celery["conf"] == {
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "task_soft_time_limit": None,
        "result_backend": None,
        "task_ignore_result": True,
        "worker_proc_alive_timeout": 180.0,
        "task_default_queue": QUEUE_UPKEEP,
    }
