"""Two models, services that know both, and the migration from one to the other."""

from collections.abc import Callable, Iterator

import pytest

from app.bootstrap import Services, WorkerServices, build_services, build_worker_services
from app.config import Role, Settings
from app.db import Database
from app.embedding.migration import ModelMigration, Progress
from app.embedding.weights import DEFAULT_SHA256
from tests.factories.encoder import FakeEncoder
from tests.factories.model_change import OTHER, Migrate


@pytest.fixture
def encoders() -> dict[str, FakeEncoder]:
    return {DEFAULT_SHA256: FakeEncoder(), OTHER: FakeEncoder(OTHER, 64)}


@pytest.fixture
def worker_services(database_settings: Settings, encoders: dict[str, FakeEncoder], worker_database: Database) -> WorkerServices:
    return build_worker_services(database_settings, load=lambda model: encoders[model.fingerprint], database=worker_database)


@pytest.fixture
def encoder(encoders: dict[str, FakeEncoder]) -> FakeEncoder:
    return encoders[DEFAULT_SHA256]


@pytest.fixture
def services(database_settings: Settings, encoders: dict[str, FakeEncoder]) -> Iterator[Services]:
    built = build_services(database_settings, load=lambda model: encoders[model.fingerprint])
    built.search._encoder._look_seconds = 0.02
    yield built
    built.close()


@pytest.fixture
def migration(login: Callable[[Role], Database]) -> Migrate:
    def make(tell: Callable[[Progress], None] = lambda _: None) -> ModelMigration:
        return ModelMigration(login("nexus_superuser"), login("nexus_worker"), tell)

    return make
