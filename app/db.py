"""Connections to PostgreSQL: one pool a process, one short transaction at a time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from psycopg2 import InternalError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import db_wait
from app.config import ROLE_SECRETS, Role, Settings
from app.errors import ConfigurationError, Conflict, DatabaseUnavailable, DeadlockVictim, InvalidRequest, OutcomeUnknown

# One round trip, and half the cost of a SELECT of set_config: there is nothing to plan and no row to read. The driver quotes the values.
_SET_AGENT = text("SET LOCAL app.current_agent_id = :agent_id; SET LOCAL app.traceparent = :traceparent")

_FOREIGN_KEY_VIOLATION = "23503"
_READ_ONLY = "25006"
_RAISED_BY_FUNCTION = "exec_stmt_raise"
_DEADLOCK_DETECTED = "40P01"

_REFUSED = "password authentication failed"
_ROTATION_SECONDS = 0.5
"""How long after a refused password it is tried once more."""

# A connection that answered this lately is not asked again whether it lives: the question is one of five round trips of a write.
_TRUSTED_SECONDS = 1.0


class Database:
    """A pool of connections that log in as one role.

    Args:
        settings: Where the server is, and its limits.
        role: The role this process is.
        application_name: What pg_stat_activity shows.
        statement_timeout_seconds: How long one statement may run, if not the configured time; 0 is without limit.
        waits_for_disk: Whether a commit returns only once it would survive a crash of the server. Whoever answers a client needs
            that; the queue's own bookkeeping does not.
    """

    def __init__(
        self,
        settings: Settings,
        role: Role,
        application_name: str,
        statement_timeout_seconds: float | None = None,
        *,
        waits_for_disk: bool = True,
    ) -> None:
        seconds = settings.statement_timeout_seconds if statement_timeout_seconds is None else statement_timeout_seconds
        statement_timeout_ms = int(seconds * 1000)
        options = f"-c statement_timeout={statement_timeout_ms} -c idle_in_transaction_session_timeout=10000 -c timezone=UTC"
        if not waits_for_disk:
            options += " -c synchronous_commit=off"
        self.role = role
        self.engine: Engine = create_engine(
            settings.database_dsn(role),
            pool_size=settings.database_pool_size,
            max_overflow=0,
            pool_timeout=settings.database_pool_timeout_seconds,
            # An error's text travels into logs and Celery's events; what an agent remembers must not.
            hide_parameters=True,
            connect_args={
                # libpq's own limit counts only where psycopg2 does not wait by ours.
                "connection_factory": db_wait.waiting_for(settings.database_connect_timeout_seconds),
                "application_name": application_name,
                # A server that vanished from the network is noticed within half a minute, also while an answer is waited for.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 4,
                "tcp_user_timeout": 30_000,
                "options": options,
            },
        )
        db_wait.install()
        _read_password_anew(self.engine, settings, role)
        event.listen(self.engine, "connect", lambda connection, _record: db_wait.limit(connection, seconds))
        _ping_after_idling(self.engine)

    @contextmanager
    def transaction(self, agent_id: str | None = None, traceparent: str | None = None) -> Iterator[Connection]:
        """Run the block in one transaction; commit at its end, roll back if it raises.

        Args:
            agent_id: Whose rows the transaction may see. It holds for this transaction only, so a
                pooled connection never carries an agent over. None sees no agent's rows.
            traceparent: W3C trace context that queue rows made here remember; needs an agent.

        Raises:
            DatabaseUnavailable: No connection could be had, it was lost or stood still, or is read-only; nothing took effect.
            DeadlockVictim: It and another waited for each other; nothing took effect.
            OutcomeUnknown: It was lost during the commit, which may have taken effect; an idempotency key settles it.
            InvalidRequest: PostgreSQL cannot represent a value.
            Conflict: A row that this one refers to was deleted meanwhile.
        """
        is_committing = False
        try:
            with self.engine.begin() as connection:
                if agent_id is not None:
                    connection.execute(_SET_AGENT, {"agent_id": agent_id, "traceparent": traceparent or ""})
                yield connection
                is_committing = True
        except PoolTimeout as error:
            raise DatabaseUnavailable("every database connection is busy; try again") from error
        except DataError as error:
            raise InvalidRequest("a value cannot be stored; look for NUL characters and numbers or dates out of range") from error
        except IntegrityError as error:
            if getattr(error.orig, "pgcode", None) == _FOREIGN_KEY_VIOLATION:
                raise Conflict("what this refers to was deleted at the same moment; try again") from error
            raise
        except DBAPIError as error:
            if is_committing and error.connection_invalidated:
                raise OutcomeUnknown("the database connection was lost during the commit; try again") from error
            if _is_of_a_read_only_server(error.orig):
                raise DatabaseUnavailable("the database takes no writes: it is read-only; try again") from error
            if getattr(error.orig, "pgcode", None) == _DEADLOCK_DETECTED:
                raise DeadlockVictim("the database ended one of two requests that waited for each other; try again") from error
            if isinstance(error, OperationalError | InterfaceError):
                raise DatabaseUnavailable("the database cannot be reached or gave up; try again") from error
            if error.connection_invalidated:
                raise DatabaseUnavailable("the database connection was lost; try again") from error
            raise

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _is_of_a_read_only_server(error: BaseException | None) -> bool:
    """Return whether the server takes no writes, as a standby does. A trigger that guards a row raises the same code."""
    if not isinstance(error, InternalError) or error.pgcode != _READ_ONLY:
        return False
    return bool(error.diag.source_function != _RAISED_BY_FUNCTION)


def _read_password_anew(engine: Engine, settings: Settings, role: Role) -> None:
    """Have each new connection log in with what the secret file holds by then, so that a changed password needs no restart.

    Source: SQLAlchemy, "Generating dynamic authentication tokens".
    """

    def connect(dialect: Any, _record: Any, arguments: Any, parameters: dict[str, Any]) -> Any:
        for is_last in (False, True):
            with suppress(ConfigurationError):  # The file is gone: what it held when this process began may still do.
                parameters["password"] = settings.secret(ROLE_SECRETS[role])
            try:
                return dialect.connect(*arguments, **parameters)
            except dialect.loaded_dbapi.OperationalError as error:
                # The file is written a moment before the server is told.
                if is_last or _REFUSED not in str(error):
                    raise
                time.sleep(_ROTATION_SECONDS)
        raise AssertionError("unreachable")

    event.listen(engine, "do_connect", connect)


def _ping_after_idling(engine: Engine) -> None:
    """Replace a pooled connection that died while it lay idle, before a transaction starts on it.

    Source: SQLAlchemy, "Dealing with Disconnects", the recipe of a custom pre-ping.
    """

    def remember(_connection: Any, record: Any) -> None:
        record.info["returned_at"] = time.monotonic()

    def ping(connection: Any, record: Any, _proxy: Any) -> None:
        # A new connection was never returned and has just answered.
        returned_at = record.info.get("returned_at")
        if returned_at is None or time.monotonic() - returned_at < _TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("the connection died while idle") from error

    event.listen(engine, "checkin", remember)
    event.listen(engine, "checkout", ping)
