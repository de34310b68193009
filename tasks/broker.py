"""The broker as the dispatcher sees it: how much lies unread there, and where batches are sent."""

from collections.abc import Sequence

import structlog
from celery.utils import uuid

from app.queue.models import Batch
from app.queue.packing import EMBED_QUEUES
from tasks.celery_app import app, settings
from tasks.messages import message_of
from tasks.names import EMBED_BATCH
from tasks.time_limit import time_limit_of

_log = structlog.get_logger(__name__)

_SECONDS = 5.0
"""How long RabbitMQ may take to confirm a message; Redis has its socket's timeout."""


class Broker:
    """Redis or RabbitMQ, over one connection of Celery's pool for each call.

    Both methods raise what the broker's client raises.
    """

    def unread(self) -> int:
        """Return how many messages lie in the queues of embedding that no worker has taken."""
        with app.producer_pool.acquire(block=True, timeout=5) as producer:
            # Both brokers say it when a queue is declared, which changes nothing where it exists.
            return sum(app.amqp.queues[name](producer.channel).queue_declare().message_count for name in EMBED_QUEUES)

    def publish(self, batches: Sequence[Batch]) -> None:
        """Send one message a batch: on Redis in one pipeline, on RabbitMQ each confirmed. If it raises, some may have gone out."""
        task_ids = [uuid() for _ in batches]
        with app.producer_pool.acquire(block=True, timeout=5) as producer, producer.batch():
            for task_id, batch in zip(task_ids, batches, strict=True):
                app.send_task(
                    EMBED_BATCH,
                    task_id=task_id,
                    kwargs=message_of(batch.claim) | {"limit_seconds": time_limit_of(batch, settings)},
                    queue=batch.queue,
                    producer=producer,
                    retry=False,
                    timeout=_SECONDS,
                    confirm_timeout=_SECONDS,
                )
        _log.info("published", rows=sum(len(batch.claim.target_ids) for batch in batches), task_ids=task_ids)
