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
        # A message of any other shape is discarded by whoever reads it, instead of ending one worker after the other.
        worker_consumer="tasks.consumer:Consumer",
        task_annotations={"*": {"Strategy": "tasks.strategy:discard_malformed", "Request": "tasks.requests:Request"}},
        task_ignore_result=True,
        result_backend=None,
        task_create_missing_queues=True,
        task_default_queue=QUEUE_UPKEEP,
        # Recovery belongs to the lease. reject_on_worker_lost would redeliver a poison message without end.
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        # No time limit of Celery's: see tasks/time_limit.py.
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
        beat_schedule=BEAT_SCHEDULE,
        timezone="UTC",
        enable_utc=True,
        **(_rabbitmq(settings) if settings.broker_is_rabbitmq else _redis(settings)),
    )
    application.steps["worker"].add("tasks.pool_watch:PoolWatch")
    return application


def _redis(settings: Settings) -> dict[str, object]:
    return {
        "broker_transport": "tasks.redis_transport:Transport",
        "broker_transport_options": {
            "visibility_timeout": settings.redis_visibility_timeout_seconds,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # Claims already give each lane its share. Strict priority here would starve embed.bulk however fair they were,
            # and a starved message holds its rows until their lease ends.
            "queue_order_strategy": "round_robin",
        },
    }


def _rabbitmq(settings: Settings) -> dict[str, object]:
    return {
        # Whoever declares a queue first decides its kind, so dispatcher, worker and beat must all say the same. A quorum queue
        # is durable and replicated; the server refuses later what differs (PRECONDITION_FAILED).
        "task_default_queue_type": "quorum",
        "task_create_missing_queue_type": "quorum",
        # Quorum queues know no global prefetch; the one message in advance is asked for by each consumer.
        "worker_detect_quorum_queues": True,
        "broker_connection_timeout": 4.0,
        # How a worker notices a broker that is silent but has not closed the connection; looked at every 20 / 3 s.
        "broker_heartbeat": 20,
        "broker_heartbeat_checkrate": 3.0,
        "broker_transport_options": {
            # A publish returns when the queue has the message, and raises if the broker refused it.
            "confirm_publish": True,
            # Declaring, opening and closing wait for an answer without a limit of their own: a broker that takes the
            # connection and says nothing must not hold the dispatcher.
            "read_timeout": 4,
            "write_timeout": 4,
            # A publish makes one attempt to connect, to each node of a cluster in turn: kombu's patience would keep the
            # dispatcher from its heartbeats and from reaping for six seconds each time.
            "max_retries": settings.broker_dsn.count(";"),
        },
    }


# Celery's prefork children inherit this; without it a child would share all cores with every other one.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The celery command takes BROKER_URL for its own --broker and lets that overrule the application; ours has no credentials in it.
os.environ.pop("CELERY_BROKER_URL", None)

settings = load_settings()
app = make_celery(settings)

__all__ = ["CONSUMED_QUEUES", "app", "settings"]
