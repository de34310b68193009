"""The connection to Redis as a cache: best effort, bounded in time, and healing by itself."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.config import Settings

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

# A black-holed Redis costs one timeout in this many seconds, not one a request.
_REST_SECONDS = 2.0


class BestEffortRedis:
    """Runs commands whose failure must not fail the request.

    After a failure Redis is left alone for two seconds, so an outage costs requests nothing.

    Args:
        settings: Where Redis is, and as whom to log in.
    """

    def __init__(self, settings: Settings) -> None:
        self.redis: Redis = Redis.from_url(
            settings.cache_dsn,
            socket_connect_timeout=0.5,
            socket_timeout=0.5,
            socket_keepalive=True,
            health_check_interval=15,
            retry=Retry(NoBackoff(), 1),
            client_name="nexus-cache",
        )
        self._rest_until = 0.0
        self.failures = 0

    def attempt(self, what: str, command: Callable[[Redis], _T]) -> _T | None:
        """Return what the command returns, or None if Redis failed or is being left alone.

        Args:
            what: The purpose, for the log; never a key or a value.
            command: Receives the client.
        """
        if time.monotonic() < self._rest_until:
            return None
        try:
            return command(self.redis)
        except RedisError as error:
            self.failures += 1
            self._rest_until = time.monotonic() + _REST_SECONDS
            _log.warning(
                "redis_failed",
                purpose=what,
                error=type(error).__name__,
                action="the request went on without the cache; check that Redis is up and that its password is that of the secret file",
            )
            return None

    def close(self) -> None:
        """Close the pooled connections."""
        self.redis.close()
