"""What tests of one subject in several files share."""

from collections.abc import Iterator

import pytest
from psycopg2 import extensions

from app.bootstrap import Services, build_reconciliation_service, build_worker_services
from app.config import Settings
from app.db import Database
from app.reconcile import service
from app.reconcile.service import ReconciliationService
from tests.factories.encoder import FakeEncoder
from tests.factories.history import install
from tests.factories.queue_world import Dispatcher, World, impatient
from tests.factories.servers import TestServers
from tests.factories.statements import Sql


@pytest.fixture
def queue_world(
    database_settings: Settings, services: Services, worker_database: Database, encoder: FakeEncoder, servers: TestServers, sql: Sql
) -> Iterator[World]:
    """Writers, dispatchers and a worker on a database of their own, whose queue is recorded."""
    install(sql)
    hurried = impatient(database_settings)
    embedding = build_worker_services(hurried, load=lambda _: encoder, database=worker_database).embedding

    def new_client() -> extensions.connection:
        client = servers.superuser(sql.one("SELECT current_database()"))
        client.autocommit = False
        return client

    yield World(services, embedding, encoder, lambda clock: Dispatcher(worker_database, hurried, clock), new_client, sql)
    embedding.breaker.wait_closed(10)


@pytest.fixture
def reconciler(database_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReconciliationService]:
    """A reconciler whose ranges have ten rows."""
    monkeypatch.setattr(service, "RANGE_SIZE", 10)
    built = build_reconciliation_service(database_settings)
    yield built
    built._database.close()
