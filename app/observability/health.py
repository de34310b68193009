"""Whether memory works: each component looked at, and what follows for the whole."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import structlog
from kombu.connection import Connection as BrokerConnection
from redis import Redis
from redis.exceptions import RedisError

from app import redis_versions
from app.config import Settings
from app.db import Database
from app.db_wait import answers_within
from app.episodes import repository as episode_repository
from app.errors import ConfigurationError, DatabaseUnavailable
from app.integrity.service import IntegrityService
from app.queue import repository as queue_repository
from app.queue import status as queue_status
from app.queue import workers
from app.queue.workers import Alive
from app.redis_client import connect

_log = structlog.get_logger(__name__)

Status = Literal["healthy", "degraded", "unhealthy"]

_NAMED_PROBLEMS = 3
_RANK: dict[Status, int] = {"healthy": 0, "degraded": 1, "unhealthy": 2}

_PATIENCE_SECONDS = 2.0
"""How long PostgreSQL may take for questions that take it a few milliseconds."""

_COUNTING_SECONDS = 5.0
"""How long it may take for those that grow with what is stored."""

_WORK = ("dispatcher", "worker", "queue")

_PROBE = "nexus:health"
"""A key that holds nothing and lives for a second."""


@dataclass(frozen=True, slots=True)
class Component:
    """One component. `latency_ms` is None when there was nothing to time."""

    status: Status
    detail: str
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The whole: as bad as its worst component."""

    status: Status
    components: dict[str, dict[str, Any]]


def overall(components: dict[str, Component]) -> Status:
    """Return the worst status of the components."""
    return max((component.status for component in components.values()), key=_RANK.__getitem__, default="healthy")


class HealthService:
    """Looks at everything that memory needs.

    Args:
        settings: Thresholds, and where the broker is.
        database: Logged in as nexus_app.
        redis: The cache, asked directly: here a failure is news, not something to work around.
        integrity: Counts the accounting identity.
        search_ready: Says whether queries can be encoded.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        redis: Redis,
        integrity: IntegrityService,
        search_ready: Callable[[], tuple[bool, str]],
    ) -> None:
        self._settings = settings
        self._database = database
        self._redis = redis
        self._integrity = integrity
        self._search_ready = search_ready
        self._broker_redis: Redis | None = None

    def ready(self) -> tuple[bool, str]:
        """Return whether this process can serve every request now, and if not, why."""
        postgresql = self._timed(self._postgresql, "unhealthy")
        return (False, postgresql.detail) if postgresql.status != "healthy" else self._search_ready()

    def report(self) -> HealthReport:
        """Look at every component and return what was seen."""
        components = {
            "postgresql": self._timed(self._postgresql, "unhealthy"),
            "redis": self._timed(lambda: self._ping(self._redis, "the cache is off; reads go to PostgreSQL")),
            "broker": self._timed(self._broker),
            "encoder": self._encoder(),
        }
        if components["postgresql"].status == "healthy":
            components.update(self._work())
            components["accounting_identity"] = self._timed(self._identity, "unhealthy")
        else:
            components.update(_unknown("PostgreSQL is down", (*_WORK, "accounting_identity")))
        return HealthReport(overall(components), {name: asdict(component) for name, component in components.items()})

    @staticmethod
    def _timed(check: Callable[[], Component], if_broken: Status = "degraded") -> Component:
        started = time.perf_counter()
        try:
            component = check()
        except Exception as error:  # noqa: BLE001
            # Whatever it was: who asks for health needs the other components too, and no bare 500.
            _log.error("health_check_failed", exc_info=error)
            component = Component(if_broken, f"it cannot be looked at: {type(error).__name__}; the API's log has more")
        return Component(component.status, component.detail, round((time.perf_counter() - started) * 1000, 2))

    def _postgresql(self) -> Component:
        try:
            with answers_within(_PATIENCE_SECONDS), self._database.transaction() as connection:
                workers.alive(connection, self._settings.worker_silence_seconds)
                # Reading may work where writing does not: on a standby, a server with a full disk, behind somebody's lock.
                episode_repository.try_to_write(connection)
        except DatabaseUnavailable as error:
            return Component("unhealthy", f"{error.message}; nothing can be stored or found")
        return Component("healthy", "reachable")

    @staticmethod
    def _ping(redis: Redis, consequence: str) -> Component:
        try:
            # A write: a Redis that is full or read-only answers a ping all the same.
            redis.set(_PROBE, b"", px=1000)
        except RedisError as error:
            return Component("degraded", f"{type(error).__name__}: {consequence}")
        note = None
        with suppress(RedisError):  # Whoever runs the server may forbid the question.
            note = redis_versions.note_of(redis.info("server"))
        return Component("healthy", "reachable" if note is None else f"reachable; {note}")

    def _broker(self) -> Component:
        consequence = "new episodes are stored and found by words, but get no vectors until the broker is back"
        try:
            dsn = self._settings.broker_dsn
        except ConfigurationError as error:
            return Component("degraded", f"{error.message}; {consequence}")
        if not self._settings.broker_is_rabbitmq:
            self._broker_redis = self._broker_redis or connect(
                self._settings, self._settings.broker_url, self._settings.redis_broker_user, socket_connect_timeout=1, socket_timeout=1
            )
            return self._ping(self._broker_redis, consequence)
        problems = [_problem_of_node(node) for node in dsn.split(";")]
        silent = [problem for problem in problems if problem is not None]
        if len(silent) == len(problems):
            return Component("degraded", f"{silent[0]}: {consequence}")
        if silent:
            down = f"{len(silent)} of {len(problems)} nodes: {silent[0]}"
            return Component("degraded", f"{down}; the others carry on while they are a majority")
        return Component("healthy", "reachable")

    def _encoder(self) -> Component:
        is_ready, problem = self._search_ready()
        return Component("healthy", "loaded") if is_ready else Component("degraded", f"{problem}; search by words works")

    def _work(self) -> dict[str, Component]:
        """Return the components that PostgreSQL knows of; all of them are not known where it does not say."""
        try:
            with answers_within(_COUNTING_SECONDS), self._database.transaction() as connection:
                alive = workers.alive(connection, self._settings.worker_silence_seconds)
                silent = workers.silent(connection, self._settings.worker_silence_seconds)
                problems = queue_status.problems(connection, self._settings.worker_silence_seconds)
                counts = queue_repository.counts(connection, None)
        except DatabaseUnavailable as error:
            return _unknown(error.message, _WORK)
        except Exception as error:  # noqa: BLE001 - as in _timed
            _log.error("health_check_failed", exc_info=error)
            return _unknown(type(error).__name__, _WORK)
        return {
            "dispatcher": _presence(alive.get("dispatcher"), "dispatcher"),
            "worker": _workers(alive.get("worker"), silent.get("worker", 0), problems),
            "queue": self._queue(counts),
        }

    def _identity(self) -> Component:
        try:
            with answers_within(_COUNTING_SECONDS):
                drift = self._integrity.drift()
        except DatabaseUnavailable as error:
            # A count that takes too long says nothing of what it counts.
            return Component("degraded", f"not known: {error.message}")
        if drift == 0:
            return Component("healthy", "drift 0")
        return Component("unhealthy", f"drift {drift}: accepted episodes are unaccounted for; POST /integrity/verify names them")

    def _queue(self, counts: Any) -> Component:
        detail = (
            f"{counts.pending} pending, {counts.processing} processing, {counts.dead} dead; oldest {counts.oldest_pending_seconds:.1f} s"
        )
        too_deep = counts.pending > self._settings.queue_depth_threshold
        too_old = counts.oldest_pending_seconds > self._settings.oldest_pending_threshold_seconds
        return Component("degraded" if too_deep or too_old or counts.dead else "healthy", detail)


def _problem_of_node(dsn: str) -> str | None:
    """Return what keeps a node of RabbitMQ from taking a connection, None if nothing does."""
    # One attempt, and nothing that waits longer than a second: connecting, each answer of the handshake, closing.
    limits = {"read_timeout": 1, "write_timeout": 1}
    node: Any = BrokerConnection(dsn, connect_timeout=1, transport_options=limits)  # type: ignore[no-untyped-call]
    try:
        node.transport.close_connection(node.transport.establish_connection())
    except (OSError, *node.connection_errors, *node.channel_errors) as error:
        return type(error).__name__
    return None


def _presence(alive: Alive | None, kind: str) -> Component:
    if alive is None or alive.processes == 0:
        return Component("degraded", f"no {kind} was heard from lately; new episodes get no vectors")
    return Component("healthy", f"{alive.processes} alive")


def _workers(alive: Alive | None, silent: int, problems: Sequence[str]) -> Component:
    if alive is None or alive.processes == 0:
        return _presence(alive, "worker")
    if not problems:
        if not silent:
            return _presence(alive, "worker")
        return Component("degraded", f"{alive.processes} alive, and {silent} fell silent within the last hour: end what hangs")
    named = "; ".join(problem for problem, _ in Counter(problems).most_common(_NAMED_PROBLEMS))
    # Each is asked for in a statement of its own, so a worker may have left in between.
    total = max(alive.processes, len(problems))
    if len(problems) == total:
        return Component("degraded", f"all of {total} alive are paused, and new episodes get no vectors: {named}")
    return Component("degraded", f"{len(problems)} of {total} alive paused: {named}")


def _unknown(reason: str, names: Sequence[str]) -> dict[str, Component]:
    return {name: Component("degraded", f"not known: {reason}") for name in names}
