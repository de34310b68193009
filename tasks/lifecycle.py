"""What a worker process does when it starts, lives, dies and stops."""

import os
import sys
import threading
from dataclasses import replace
from functools import cache
from typing import Any

import psutil
import structlog
from billiard.exceptions import WorkerLostError
from celery.concurrency import get_implementation
from celery.concurrency.prefork import TaskPool
from celery.signals import (
    celeryd_init,
    setup_logging,
    task_failure,
    task_postrun,
    task_prerun,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
)

from app.bootstrap import WorkerServices, build_queue_service, build_worker_services, check_model
from app.db_wait import answers_within
from app.errors import ConfigurationError, NexusError
from app.observability import context, process_metrics, tracing
from app.observability.logs import configure_logging
from app.queue.service import QueueService
from app.queue.workers import WorkerIdentity, this_process
from tasks.celery_app import settings
from tasks.heartbeat import Heartbeat
from tasks.messages import claim_of
from tasks.names import EMBED_BATCH
from tasks.parent import Parent
from tasks.pool_watch import PoolWatch
from tasks.requests import Request
from tasks.time_limit import ENDED_BY

_log = structlog.get_logger(__name__)

_SCRAPE_SECONDS = 2.0
"""How long a scrape may wait for PostgreSQL."""


class ChildProcess:
    """The services of this pool child, and the thread by which it says that it is alive."""

    def __init__(self) -> None:
        self.services: WorkerServices = build_worker_services(settings)
        embedding = self.services.embedding
        self.identity: WorkerIdentity = this_process("worker", 1, embedding.model.model_id, embedding.precision)
        self._parent = Parent()
        self._heartbeat = Heartbeat(self._beat, settings.heartbeat_seconds)
        embedding.when_changed = self._heartbeat.now
        embedding.when_hopeless = lambda: os._exit(1)

    def start(self) -> None:
        """Announce the process now and keep announcing it."""
        self.services.queue.join(self.identity)
        self._heartbeat.start()

    def _beat(self) -> None:
        embedding = self.services.embedding
        # Also how an idle worker notices that models came into use or went out of it.
        embedding.look()
        self.identity = replace(self.identity, model_id=embedding.model.model_id, precision=embedding.precision)
        rate, problem = embedding.rate, embedding.problem or self._parent.problem
        self.services.queue.beat(self.identity, rate.items_per_second, rate.chars_per_second, problem)

    def stop(self) -> None:
        """Stop announcing the process and take its row away."""
        self._heartbeat.stop()
        try:
            self.services.queue.leave(self.identity)
        except NexusError:
            _log.info("left_unannounced")


_child: ChildProcess | None = None


def child() -> ChildProcess:
    """Return this pool child's services; tasks run in no other process."""
    if _child is None:
        raise RuntimeError("tasks run in a pool child, after worker_process_init")
    return _child


@setup_logging.connect
def _configure_logging(**_: Any) -> None:
    configure_logging(settings, "beat" if "beat" in sys.argv else "worker")


@celeryd_init.connect
def _refuse_what_waiting_cannot_mend(options: dict[str, Any] | None = None, **_: Any) -> None:
    """End the worker with the reason, before it has children, where a secret is missing, or its model or its pool is not the right one.

    What may pass by itself, such as PostgreSQL being down, is left to the children, which try again.
    """
    configure_logging(settings, "worker")
    try:
        for name in ("pg_worker_password", "redis_password"):
            settings.secret(name)
        _require_children((options or {}).get("pool"))
        check_model(settings, "nexus_worker")
    except ConfigurationError as error:
        _log.critical("worker_refuses_to_start", code=error.code, error=error.message, action="mend what it names, then start it again")
        # Celery swallows any exception of a signal's receiver but this.
        raise SystemExit(1) from error


def _require_children(pool: Any) -> None:
    """Do nothing when the pool has child processes: a model is loaded in each, and the time limit ends one.

    Raises:
        ConfigurationError: The worker was started with another pool; it would take every message and do nothing.
    """
    if pool is not None and get_implementation(pool) is not TaskPool:
        raise ConfigurationError("workers run with the pool prefork only: leave -P out")


@worker_process_init.connect
def _start_child(**_: Any) -> None:
    global _child
    configure_logging(settings, "worker")
    tracing.configure(settings, "worker")
    try:
        _child = ChildProcess()
        _child.start()
    except NexusError as error:
        _give_up(error.code, error.message)
    except Exception as error:  # noqa: BLE001
        # Celery swallows what a signal's receiver raises: the child would live on and fail every message it takes.
        _give_up("internal_error", type(error).__name__)


def _give_up(code: str, message: str) -> None:
    """End this child, so that the parent replaces it; after a pause, or it would do so as fast as it can."""
    _log.critical("worker_cannot_start", code=code, error=message, action="the process tries again by itself; mend what it names")
    threading.Event().wait(5)
    os._exit(1)


@task_prerun.connect
def _name_task(task_id: str = "", **_: Any) -> None:
    context.start_task(task_id)


@task_postrun.connect
def _forget_task(**_: Any) -> None:
    context.clear()


@worker_process_shutdown.connect
def _stop_child(**_: Any) -> None:
    if _child is not None:
        _child.stop()
    tracing.stop()


@cache
def _parents_queue() -> QueueService:
    """Return the queue of the worker's parent process, with one pool however many children die."""
    return build_queue_service(settings)


def _last_heard_of() -> float | None:
    """In the parent: return when a child last said that it lives, None when that is not known."""
    pids = [process.pid for process in psutil.Process().children(recursive=True)]
    try:
        with answers_within(_SCRAPE_SECONDS):
            return _parents_queue().last_heard_of(this_process("worker").hostname, pids)
    except NexusError:
        return None


@worker_init.connect
def _show_metrics(**_: Any) -> None:
    """In the parent, before it has children."""
    process_metrics.serve(Request.counts, settings.metrics_host, settings.metrics_port, _last_heard_of)


def _forget_dead_processes() -> None:
    """In the parent: a child is gone, so no room is kept for it and nobody takes it for alive until its silence is noticed."""
    try:
        _parents_queue().forget_dead(this_process("worker"))
    except NexusError as error:
        _log.warning("dead_process_not_forgotten", error=error.message, action="nothing to do: its silence is noticed within a minute")


PoolWatch.when_gone.append(_forget_dead_processes)


@task_failure.connect
def _release_rows_of_dead_child(
    sender: Any = None, exception: BaseException | None = None, kwargs: dict[str, Any] | None = None, **_: Any
) -> None:
    """In the parent: a child died, or was ended at the time limit, so its rows go back now instead of when the lease ends."""
    if getattr(sender, "name", None) != EMBED_BATCH or not isinstance(exception, WorkerLostError) or not kwargs:
        return
    code = "time_limit_exceeded" if ENDED_BY in str(exception) else "worker_lost"
    claim = claim_of(**{name: value for name, value in kwargs.items() if name != "limit_seconds"})
    try:
        _parents_queue().release_crashed(claim, f"{code}: {type(exception).__name__}")
    except NexusError as error:
        _log.warning("rows_not_released", error=error.message, action="nothing to do: the rows come back when their lease ends")
