"""The connection to Redis as a cache: best effort, bounded in time, and healing by itself."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit
from weakref import ref

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError
from redis.retry import Retry

from app.config import REDIS_SECRET, Settings
from app.errors import ConfigurationError

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

# A black-holed Redis costs one timeout in this many seconds, not one a request.
_REST_SECONDS = 2.0
_PAY_SECONDS = 0.5
"""How often what is owed is tried, where no request does it."""
_MOST_OWED = 10_000

Debt = Callable[[Any], object]
"""Queues commands into a pipeline; what depends on what Redis holds, it does at once."""


class _SecretFile(CredentialProvider):
    """User and password as the secret file holds it when a connection is made, so that a changed password needs no restart."""

    def __init__(self, settings: Settings, user: str) -> None:
        self._settings = settings
        self._user = user
        self._password = settings.secret(REDIS_SECRET)

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return what to log in with."""
        with suppress(ConfigurationError):  # The file is gone: what it held before may still do.
            self._password = self._settings.secret(REDIS_SECRET)
        return (self._user, self._password) if self._user else (self._password,)


def connect(settings: Settings, url: str, user: str, **options: Any) -> Redis:
    """Return a client; it logs in with the secret file's password unless the URL brings its own credentials.

    Args:
        settings: Where the file is.
        url: redis://host:port/database.
        user: ACL user; empty for a server with one password only.
        options: Of redis-py.

    Raises:
        ConfigurationError: The secret is needed, and missing or empty.
    """
    if "@" not in urlsplit(url).netloc:
        options["credential_provider"] = _SecretFile(settings, user)
    client: Redis = Redis.from_url(url, **options)
    return client


class BestEffortRedis:
    """Runs commands whose failure must not fail the request.

    After a failure Redis is left alone for two seconds, so an outage costs requests nothing. What it must not miss is owed: a thread
    tries it every half second, also in that time, because until then other processes may read what is old.

    Args:
        settings: Where Redis is, and as whom to log in.
    """

    def __init__(self, settings: Settings) -> None:
        self.redis: Redis = connect(
            settings,
            settings.redis_url,
            settings.redis_cache_user,
            socket_connect_timeout=0.5,
            socket_timeout=0.5,
            socket_keepalive=True,
            health_check_interval=15,
            retry=Retry(NoBackoff(), 1),
            client_name="nexus-cache",
        )
        self._rest_until = 0.0
        self._owed: OrderedDict[Hashable, Debt] = OrderedDict()
        self._lock = threading.Lock()
        self._payer: threading.Thread | None = None

    def attempt(self, what: str, command: Callable[[Redis], _T]) -> _T | None:
        """Return what the command returns, or None if Redis failed or is being left alone.

        Args:
            what: The purpose, for the log; never a key or a value.
            command: Receives the client.
        """
        if time.monotonic() < self._rest_until:
            return None
        return self._try(what, command)

    def _try(self, what: str, command: Callable[[Redis], _T]) -> _T | None:
        try:
            self._pay()
            return command(self.redis)
        except RedisError as error:
            self._rest_until = time.monotonic() + _REST_SECONDS
            _log.warning(
                "redis_failed",
                purpose=what,
                error=type(error).__name__,
                action="the request went on without the cache; check that Redis is up and that its password is that of the secret file",
            )
            return None

    def owe(self, name: Hashable, debt: Debt) -> None:
        """Have something done as soon as Redis answers this process again.

        Args:
            name: What it is about: a later debt of the same name takes its place.
            debt: The commands; they must do no harm when they come late or twice.
        """
        with self._lock:
            self._owed[name] = debt
            while len(self._owed) > _MOST_OWED:
                self._owed.popitem(last=False)
                _log.warning("redis_debt_forgotten", action="`python -m app reconcile run` finds what is stale; it runs by itself too")
            if self._payer is None or not self._payer.is_alive():
                self._payer = threading.Thread(target=_pay_on, args=(ref(self),), name="redis debts", daemon=True)
                self._payer.start()

    def _pay(self) -> None:
        if not self._owed:
            return
        with self._lock:
            owed = dict(self._owed)
        with self.redis.pipeline() as pipeline:
            for debt in owed.values():
                debt(pipeline)
            pipeline.execute()
        with self._lock:
            for name, debt in owed.items():
                if self._owed.get(name) is debt:
                    del self._owed[name]
        self._rest_until = 0.0
        _log.info("redis_caught_up", debts=len(owed))

    def _is_paid(self) -> bool:
        with self._lock:
            if not self._owed:
                self._payer = None
            return not self._owed

    def close(self) -> None:
        """Close the pooled connections."""
        self.redis.close()


def _pay_on(client: "ref[BestEffortRedis]") -> None:
    """Pay until nothing is owed, or nobody uses the client any more.

    A process without requests must not leave others what it could not void.
    """
    while True:
        time.sleep(_PAY_SECONDS)
        redis = client()
        if redis is None or redis._is_paid():
            return
        redis._try("do what Redis missed", lambda _: None)
        del redis
