"""The one table of every process of the stack: its command, how it is stopped, how long that may take."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.config import Settings
from app.stack.layout import Layout

StopSignal = Literal["TERM", "INT", "QUIT"]

QUEUES = "embed.hi,embed.bulk,embed.solo,upkeep"
"""Every queue a worker consumes."""


@dataclass(frozen=True)
class Program:
    """One process that is kept running."""

    name: str
    command: Sequence[str]
    stop_signal: StopSignal = "TERM"
    stop_wait_seconds: int = 15
    """How long it may take to stop before it is killed."""
    start_seconds: int = 5
    """A process that ends sooner counts as a failed start."""
    start_retries: int = 10
    """Failed starts in a row, each one second later than the one before, after which it is given up."""
    kill_group: bool = True
    """Whether a kill also reaches the processes it started."""
    starts_with_stack: bool = True
    """Whether it starts with the others; a worker beyond WORKER_REPLICAS waits until the backlog needs it."""
    user: str | None = None
    """The operating system user, None for that of the stack."""
    environment: Mapping[str, str] = field(default_factory=dict)


def postgres_program(command: Sequence[str], user: str | None) -> Program:
    """Return PostgreSQL: INT is its fast shutdown, and killing its group would skip crash-safe exits of its own children."""
    return Program("postgres", command, stop_signal="INT", stop_wait_seconds=90, start_seconds=2, kill_group=False, user=user)


def redis_program(command: Sequence[str]) -> Program:
    """Return Redis, which writes its snapshot when it is told to stop."""
    return Program("redis", command, stop_wait_seconds=30, start_seconds=1)


def service_programs(settings: Settings, layout: Layout) -> list[Program]:
    """Return the processes that need the servers, in the order in which they start.

    Args:
        settings: Of the running stack: the addresses of its servers are filled in.
        layout: Where the processes keep their files.
    """
    python = [sys.executable, "-m"]
    celery = [*python, "celery", "-A", "tasks.celery_app"]
    one_thread = {"OMP_NUM_THREADS": "1"}
    return [
        Program(
            "api",
            [*python, "gunicorn", "-c", "app/gunicorn_config.py", "app.wsgi:app"],
            stop_wait_seconds=40,
            environment={"PROMETHEUS_MULTIPROC_DIR": str(layout.api_metrics), **one_thread},
        ),
        Program("dispatcher", [*python, "tasks.dispatch"], environment=one_thread),
        *(_worker(celery, number, settings) for number in range(1, settings.worker_bounds[1] + 1)),
        Program("beat", [*celery, "beat", "--loglevel", "INFO", "-s", str(layout.beat / "schedule"), "--pidfile="], environment=one_thread),
        Program("flower", [*celery, "flower", "--conf=tasks/flower_config.py"], environment=one_thread),
        Program("mcp", [*python, "app", "mcp", "serve"], environment=one_thread),
    ]


def metrics_ports(settings: Settings) -> dict[str, int]:
    """Return the port of each program that shows metrics of its own; empty when none does."""
    names = ["dispatcher", *worker_names(settings)]
    return {name: settings.metrics_port + number for number, name in enumerate(names)} if settings.metrics_port else {}


def _worker(celery: Sequence[str], number: int, settings: Settings) -> Program:
    command = [*celery, "worker", "--loglevel", "INFO", "--concurrency", "1", "-n", f"worker{number}@%h", "-Q", QUEUES]
    name = f"worker_{number}"
    return Program(
        name,
        command,
        starts_with_stack=name in first_workers(settings),
        # TERM ends a worker after its current batch, about a second. (Celery's soft shutdown would
        # always sleep its whole timeout while a batch runs.) What takes longer is killed; its lease recovers it.
        stop_wait_seconds=45,
        environment={"OMP_NUM_THREADS": str(settings.worker_threads), "METRICS_PORT": str(metrics_ports(settings).get(name, 0))},
    )


def worker_names(settings: Settings) -> list[str]:
    """Return the names of the worker programs, those that do not start with the stack included."""
    return [f"worker_{number}" for number in range(1, settings.worker_bounds[1] + 1)]


def first_workers(settings: Settings) -> list[str]:
    """Return the names of the workers that start with the stack: WORKER_REPLICAS of them, within the bounds."""
    low, high = settings.worker_bounds
    return worker_names(settings)[: max(low, min(high, settings.worker_replicas))]
