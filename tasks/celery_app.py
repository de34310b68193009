"""The Celery application: `celery -A tasks.celery_app worker`. Settings here decide how fast it recovers, never whether it is correct."""

import os

from celery import Celery

from app.config import Settings, load_settings
from beat_schedule import BEAT_SCHEDULE
from tasks.names import CONSUMED_QUEUES, QUEUE_UPKEEP


def make_celery(settings: Settings) -> Celery:
    """Return the application configured for the settings' broker."""
    application = Celery("nexus", broker=settings.broker_dsn, include=["tasks.embedding", "tasks.upkeep", "tasks.lifecycle"])
    application.conf.update(
        # Only ids and tokens travel, and nobody reads results: PostgreSQL holds the outcome.
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_create_missing_queues=True,
        task_default_queue=QUEUE_UPKEEP,
        # Recovery belongs to the lease. reject_on_worker_lost would redeliver a poison message without end.
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        # A soft limit raises in the middle of a commit, so only the hard one, by which the parent kills the child.
        task_time_limit=settings.task_time_limit_seconds,
        worker_prefetch_multiplier=1,
        # A model loaded before a fork deadlocks; a replacement child needs time to load it before the parent gives it up.
        worker_pool="prefork",
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=settings.worker_proc_alive_timeout_seconds,
        worker_max_tasks_per_child=5000,
        worker_soft_shutdown_timeout=30.0,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=True,
        task_send_sent_event=True,
        # A worker that loses its broker waits for it, however long.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=5,
        broker_transport_options=_transport_options(settings),
        beat_schedule=BEAT_SCHEDULE,
        timezone="UTC",
        enable_utc=True,
    )
    return application


def _transport_options(settings: Settings) -> dict[str, object]:
    if not settings.broker_dsn.startswith("redis"):
        return {"confirm_publish": True}
    return {
        "visibility_timeout": settings.redis_visibility_timeout_seconds,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "queue_order_strategy": "priority",
    }


# Celery's prefork children inherit this; without it a child would share all cores with every other one.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The celery command takes BROKER_URL for its own --broker and lets that overrule the application; ours has no credentials in it.
os.environ.pop("CELERY_BROKER_URL", None)

settings = load_settings()
app = make_celery(settings)

__all__ = ["CONSUMED_QUEUES", "app", "settings"]
