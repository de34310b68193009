"""What every test may ask for: servers of this session, a database of its own, connections by role, services on a fake encoder."""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from psycopg2 import extensions

from app.bootstrap import Services, WorkerServices, build_services, build_worker_services
from app.config import Role, Settings
from app.db import Database
from app.factory import create_app
from app.identity.models import KeyRole
from tests.factories.celery_exporter import ExporterEnvironment
from tests.factories.encoder import FakeEncoder
from tests.factories.processes import wait_until
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

# What the developer's shell says about a real installation must not reach a test.
for _name in Settings.model_fields:
    os.environ.pop(_name.upper(), None)

# A shell that starts pytest in the background has it ignore interrupts, and what pytest starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _nobody_goes_on() -> Iterator[None]:
    """What a test leaves running slows every later one: a dozen threads that try to reach dropped databases made them ten times slower."""
    yield

    def left() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name in {"encoder", "lease", "breaker"}]

    wait_until(lambda: not left(), 10, lambda: f"tests left threads running: {left()}")


@pytest.fixture(scope="session")
def servers() -> Iterator[TestServers]:
    """PostgreSQL and Redis on free ports, with secrets of their own, stopped at the end whatever happens."""
    # A terminated run must end like an interrupted one, so that the servers are stopped.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = TestServers()
    try:
        started.start()
        yield started
    finally:
        started.stop()
        signal.signal(signal.SIGTERM, previous)


@pytest.fixture(scope="session")
def exporter_environment() -> Iterator[ExporterEnvironment]:
    """celery-exporter's own environment, made once in the background."""
    # Not pytest's own folder: the process that uses it may be another user's.
    folder = Path(tempfile.mkdtemp(prefix="nexus-exporter-"))
    folder.chmod(0o755)
    environment = ExporterEnvironment(folder / "venv")
    yield environment
    environment.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def catalogue(servers: TestServers) -> Iterator[Sql]:
    """The superuser in a migrated database that all tests share: to be read, or changed in a transaction that is rolled back."""
    with servers.database() as name, closing(servers.superuser(name)) as connection:
        yield Sql(connection)


@pytest.fixture
def database_settings(servers: TestServers) -> Iterator[Settings]:
    """Settings of a fresh, migrated database and an empty Redis."""
    with servers.database() as name:
        servers.flush_redis()
        settings = servers.settings_for(name)
        servers.refuse_foreign(settings)
        yield settings


@pytest.fixture
def superuser(servers: TestServers, database_settings: Settings) -> Iterator[extensions.connection]:
    """The cluster's superuser in the test's database, in autocommit: for faults made by hand and for looking past row security."""
    connection = servers.superuser(database_settings.database_url.rpartition("/")[2])
    yield connection
    connection.close()


@pytest.fixture
def sql(superuser: extensions.connection) -> Sql:
    """Statements as the superuser."""
    return Sql(superuser)


@pytest.fixture
def login(database_settings: Settings) -> Iterator[Callable[[Role], Database]]:
    """Open a pool as a role of the service."""
    opened: list[Database] = []

    def open_as(role: Role) -> Database:
        opened.append(Database(database_settings, role, "tests"))
        return opened[-1]

    yield open_as
    for database in opened:
        database.close()


@pytest.fixture
def app_database(login: Callable[[Role], Database]) -> Database:
    """The API's role."""
    return login("nexus_app")


@pytest.fixture
def worker_database(login: Callable[[Role], Database]) -> Database:
    """The workers' role."""
    return login("nexus_worker")


@pytest.fixture
def owner_database(login: Callable[[Role], Database]) -> Database:
    """The owner of the tables, which only migrations log in as."""
    return login("nexus_superuser")


@pytest.fixture
def encoder() -> FakeEncoder:
    """The encoder of queries and documents."""
    return FakeEncoder()


@pytest.fixture
def services(database_settings: Settings, encoder: FakeEncoder) -> Iterator[Services]:
    """The services of an API process, on the fake encoder."""
    built = build_services(database_settings, load=lambda _: encoder)
    yield built
    built.close()


@pytest.fixture
def worker_services(database_settings: Settings, encoder: FakeEncoder, worker_database: Database) -> WorkerServices:
    """The services of a worker, on the fake encoder."""
    return build_worker_services(database_settings, load=lambda _: encoder, database=worker_database)


@pytest.fixture
def workshop(worker_services: WorkerServices, worker_database: Database, encoder: FakeEncoder) -> Workshop:
    """Dispatcher and worker in the test's hands."""
    return Workshop(worker_services, worker_database, encoder)


@pytest.fixture
def drain(workshop: Workshop) -> Callable[[], int]:
    """Embed everything that is due and return how many rows were done."""
    return workshop.drain


@pytest.fixture
def agent_key(services: Services) -> Callable[..., str]:
    """Issue a key for an agent: agent_key(agent_id, role='agent')."""

    def issue(agent_id: str | None, role: KeyRole = "agent") -> str:
        return services.keys.create(role=role, name="test", agent_id=agent_id, expires_days=None).secret

    return issue


@pytest.fixture
def client(services: Services, database_settings: Settings) -> Iterator[FlaskClient]:
    """A client of the whole application that sends the first administrator's key; it names no agent by itself."""
    app = create_app(database_settings, services)
    with app.test_client() as opened:
        opened.environ_base["HTTP_X_API_KEY"] = database_settings.secret("admin_api_key")
        yield opened
