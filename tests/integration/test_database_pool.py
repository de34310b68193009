"""Pooled connections: one that died is replaced unseen, and who waits for the disk."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

import app.db
from app.config import Role, Settings
from app.db import Database
from app.errors import DatabaseUnavailable
from tests.factories.statements import Sql

_PID = text("SELECT pg_backend_pid()")


def pid_of(database: Database) -> int:
    with database.transaction() as connection:
        return int(connection.execute(_PID).scalar_one())


def test_connection_that_died_while_idle_is_replaced_unseen(app_database: Database, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pid_of(app_database)
    sql(f"SELECT pg_terminate_backend({before}, 5000)")
    monkeypatch.setattr(app.db, "_TRUSTED_SECONDS", 0.0)
    assert pid_of(app_database) != before


def test_connection_that_died_a_moment_ago_costs_one_request(app_database: Database, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.db, "_TRUSTED_SECONDS", 60.0)
    before = pid_of(app_database)
    sql(f"SELECT pg_terminate_backend({before}, 5000)")
    with pytest.raises(DatabaseUnavailable):
        pid_of(app_database)
    assert pid_of(app_database) != before


def test_only_the_queues_bookkeeping_does_not_wait_for_the_disk(database_settings: Settings, login: Callable[[Role], Database]) -> None:
    queue = Database(database_settings, "nexus_worker", "test", waits_for_disk=False)
    try:
        for database, expected in ((login("nexus_app"), "on"), (queue, "off")):
            with database.transaction() as connection:
                assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == expected
    finally:
        queue.close()
