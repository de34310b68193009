"""The worker's consumer on RabbitMQ: Celery's own without native delayed delivery."""

from celery.worker.consumer import Consumer


class UndelayedConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Consumes quorum queues without declaring the 28 queues and exchanges by which Celery delays messages on them.

    No message here carries a delay: a retry waits in PostgreSQL. Celery has no setting for this; it takes the step whenever it
    sees a quorum queue.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """Celery's steps but that one."""

        default_steps = [step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")]  # noqa: RUF012
