"""What the tests of the state machine of the queue share."""

from collections.abc import Iterator

import pytest
from psycopg2 import extensions

from app.bootstrap import Services, build_worker_services
from app.config import Settings
from app.db import Database
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
