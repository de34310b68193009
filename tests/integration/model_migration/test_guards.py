"""Guards of a change of the model, each with a mutant: the same steps, the guard taken away, must find the fault."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from psycopg2 import extensions
from sqlalchemy import text

from app.bootstrap import Services
from app.embedding import migration as migration_module
from app.embedding import model_roles
from app.embedding.copies import renew_episodes
from app.embedding.migration import ModelMigration
from app.embedding.weights import DEFAULT_SHA256
from tests.factories.encoder import FakeEncoder
from tests.factories.model_change import OTHER, Migrate, Working, best, run, store, vectors
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

Check = Callable[[], None]


@pytest.fixture
def rate_is_kept(services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql) -> Check:
    def check() -> None:
        store(services, "alice", *(f"text {n}" for n in range(30)))
        workshop.drain()
        with Working(workshop):
            run(migration(), encoders[OTHER], rows_per_second=20)
        seconds = sql.one(
            "SELECT extract(epoch FROM max(enqueued_at) - min(enqueued_at))::float FROM memory_system.embeddings_queue WHERE model_id = 2"
        )
        assert seconds >= 0.95, "rows of the second portion came too soon"

    return check


def test_rate_limits_the_rows_enqueued_in_a_second(rate_is_kept: Check) -> None:
    rate_is_kept()


def test_mutant_that_ignores_the_rate(rate_is_kept: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue = ModelMigration._enqueue
    monkeypatch.setattr(ModelMigration, "_enqueue", lambda self, agent_id, target, _: enqueue(self, agent_id, target, None))
    with pytest.raises(AssertionError, match="too soon"):
        rate_is_kept()


def test_mutant_that_does_not_wait_between_portions(rate_is_kept: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.embedding.migration.time.sleep", lambda _: None)
    with pytest.raises(AssertionError, match="too soon"):
        rate_is_kept()


@pytest.fixture
def late_commit_is_embedded(
    servers: TestServers, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> Check:
    def change() -> None:
        changing = migration()
        changing.embed(changing.begin(encoders[OTHER], "/models/other"))

    def check() -> None:
        older: extensions.connection = servers.superuser(sql.one("SELECT current_database()"))
        older.autocommit = False
        older.cursor().execute("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES ('alice', 'late')")
        with ThreadPoolExecutor(1) as pool, Working(workshop):
            changing = pool.submit(change)
            wait([changing], timeout=2)
            older.commit()
            older.close()
            changing.result(60)
        assert vectors(sql).get(2) == 1, "an episode of an older transaction has no vector of the target"

    return check


def test_begin_waits_for_transactions_that_do_not_know_the_target(late_commit_is_embedded: Check) -> None:
    late_commit_is_embedded()


def test_mutant_that_does_not_wait_for_older_transactions(late_commit_is_embedded: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_roles, "_ALL_OLDER_ENDED", text("SELECT CAST(:xid AS text) IS NOT NULL"))
    with pytest.raises(AssertionError, match="of an older transaction"):
        late_commit_is_embedded()


@pytest.fixture
def return_serves_everything(services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder]) -> Check:
    def check() -> None:
        store(services, "alice", "the lighthouse")
        workshop.drain()
        with Working(workshop):
            run(migration(), encoders[OTHER])
            run(migration(), encoders[DEFAULT_SHA256], "")
        store(services, "alice", "a heron by the weir")
        workshop.drain()
        migration().begin(encoders[OTHER], "/models/other")
        models = services.search._encoder.models()
        while models.active.model_id != 1 or models.target is None:
            models = services.search._encoder.models()
        assert best(services, "alice", "a heron by the weir") == ("a heron by the weir", 1.0), "served from an incomplete corpus"

    return check


def test_return_to_a_model_serves_no_agent_before_its_corpus_is_complete_again(return_serves_everything: Check) -> None:
    return_serves_everything()


def test_mutant_that_remembers_who_was_complete_once(return_serves_everything: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration_module, "_FORGET_COMPLETE", text("SELECT :model_id"))
    with pytest.raises(AssertionError, match="incomplete corpus"):
        return_serves_everything()


@pytest.fixture
def every_copy_is_renewed(
    services: Services,
    workshop: Workshop,
    migration: Migrate,
    encoders: dict[str, FakeEncoder],
    sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
) -> Check:
    def check() -> None:
        monkeypatch.setattr(migration_module, "_REFRESH_ROWS", 2)
        store(services, "alice", *(f"text {n}" for n in range(5)))
        workshop.drain()
        with Working(workshop):
            target = run(migration(), encoders[OTHER])
        versions = sql("SELECT embedding_version, count(*)::int FROM nexus_memory.zep_episodic_memory GROUP BY 1")
        assert versions == [(target.version, 5)], "a copy is of the old model"

    return check


def test_copies_are_renewed_beyond_the_first_portion(every_copy_is_renewed: Check) -> None:
    every_copy_is_renewed()


def test_mutant_that_renews_one_portion_of_copies(every_copy_is_renewed: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    portions = iter((renew_episodes,))

    def renew_once(*arguments: Any) -> int:
        return next(portions, lambda *_: 0)(*arguments)

    monkeypatch.setattr(migration_module, "renew_episodes", renew_once)
    with pytest.raises(AssertionError, match="of the old model"):
        every_copy_is_renewed()
