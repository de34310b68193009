"""The dispatcher process: `python -m tasks.dispatch`."""

import signal
import sys
import threading
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError

from app.bootstrap import build_cache_redis, build_queue_service
from app.cache.keys import DOORBELL
from app.errors import NexusError
from app.observability import process_metrics
from app.observability.logs import configure_logging
from app.observability.process_metrics import DispatcherCounts
from app.queue.dispatcher import Dispatcher
from tasks.broker import Broker
from tasks.celery_app import settings

_log = structlog.get_logger(__name__)


class Doorbell:
    """Listens on Redis for news of work. Without Redis it only sleeps, and the dispatcher polls.

    Args:
        redis: The cache's connection pool.
        stop: Ends a wait at once.
    """

    def __init__(self, redis: Redis, stop: threading.Event) -> None:
        self._redis = redis
        self._stop = stop
        self._subscription: Any = None

    def wait(self, seconds: float) -> None:
        """Return when the doorbell rings or after the given seconds."""
        try:
            if self._subscription is None:
                subscription: Any = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                subscription.subscribe(DOORBELL)
                self._subscription = subscription
            if self._subscription.get_message(timeout=seconds) is not None:
                self._drain()
        except RedisError as error:
            _log.warning("doorbell_silent", error=type(error).__name__, action="check Redis; until it is back the dispatcher polls")
            self._subscription = None
            self._stop.wait(max(seconds, 1.0))

    def _drain(self) -> None:
        """Many rings before one look are one ring."""
        for _ in range(1000):
            if self._subscription.get_message(timeout=0) is None:
                return


def main() -> int:
    """Dispatch until SIGTERM or SIGINT; return the exit status."""
    configure_logging(settings, "dispatcher")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        queue = build_queue_service(settings)
        doorbell = Doorbell(build_cache_redis(settings).redis, stop)
    except NexusError as error:
        _log.critical("dispatcher_cannot_start", code=error.code, error=error.message)
        return 1
    _log.info("dispatcher_started")
    counts = DispatcherCounts()
    process_metrics.serve(counts, settings.metrics_host, settings.metrics_port, lambda: counts.heard_at)
    Dispatcher(queue, Broker(), doorbell.wait, settings, counts).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
