"""The embedding model changes in place: every search in between finds, agent by agent, and a killed run goes on."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from app.bootstrap import Services, WorkerServices, build_services, build_worker_services
from app.config import Role, Settings
from app.db import Database
from app.embedding.migration import ModelMigration, Progress
from app.embedding.models import EmbeddingModel, ModelsInUse
from app.embedding.weights import DEFAULT_SHA256, find_source
from app.errors import ConfigurationError, Conflict, EncoderUnavailable, NotFound
from app.search.encoding import QueryEncoder
from app.search.query import SearchQuery
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import edit, new_episode
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

OTHER = "a" * 64


class Killed(BaseException):
    """Stands for a kill of the command."""


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
    built.database.close()


Migrate = Callable[..., ModelMigration]


@pytest.fixture
def migration(login: Callable[[Role], Database]) -> Migrate:
    def make(tell: Callable[[Progress], None] = lambda _: None) -> ModelMigration:
        return ModelMigration(login("nexus_superuser"), login("nexus_worker"), tell)

    return make


class Working:
    """Workers at work in a thread of their own while the test goes on."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._stop.wait(0.01):
            self._workshop.drain()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def store(services: Services, agent_id: str, *contents: str) -> list[UUID]:
    return [receipt.episode_id for receipt in services.episodes.store_many(agent_id, [new_episode(content) for content in contents])]


def best(services: Services, agent_id: str, query: str) -> tuple[str, float] | None:
    found = services.search.search(agent_id, SearchQuery(query, mode="vector", limit=1)).results
    return (found[0].content, round(float(found[0].score_breakdown["cosine"] or 0), 3)) if found else None


def vectors(sql: Sql) -> dict[int, int]:
    return dict(sql("SELECT model_id, count(DISTINCT episode_id)::int FROM nexus_memory.episode_chunks GROUP BY 1"))


def run(migration: ModelMigration, encoder: FakeEncoder, source: str = "/models/other", **options: Any) -> EmbeddingModel:
    target = migration.begin(encoder, source)
    assert migration.embed(target, **options) == 0
    migration.activate(target)
    migration.copy(target)
    return target


def test_every_search_finds_while_the_model_changes(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    agents = [f"agent-{n}" for n in range(6)]
    for agent in agents:
        store(services, agent, f"{agent} keeps a lighthouse", "bread rises overnight")
    workshop.drain()
    assert best(services, agents[0], "agent-0 keeps a lighthouse") == ("agent-0 keeps a lighthouse", 1.0)
    stop = threading.Event()
    problems: list[Any] = []

    def search_on() -> None:
        while not stop.is_set():
            for agent in agents:
                if best(services, agent, f"{agent} keeps a lighthouse") != (f"{agent} keeps a lighthouse", 1.0):
                    problems.append(agent)

    searching = threading.Thread(target=search_on)
    searching.start()
    with Working(workshop):
        target = run(migration(), encoders[OTHER])
    stop.set()
    searching.join()
    assert problems == []
    assert sql("SELECT version, is_active, is_target FROM memory_system.embedding_models ORDER BY model_id") == [
        ("miniLM-384-chunked@v3", False, False),
        (target.version, True, False),
    ]
    assert vectors(sql) == {1: 12, 2: 12}
    # The copies on the rows are of the new model too, and nothing is unaccounted for.
    assert sql("SELECT DISTINCT embedding_version, vector_dims(embedding) FROM nexus_memory.zep_episodic_memory") == [(target.version, 64)]
    assert services.integrity.identity().drift == 0
    late = store(services, "agent-0", "a heron waits by the weir")
    workshop.drain()
    assert vectors(sql) == {1: 12, 2: 13}
    assert sql.one("SELECT vector_dims(embedding) FROM nexus_memory.zep_episodic_memory WHERE episode_id = %s", str(late[0])) == 64


def noting(calls: list[str], name: str, encode: Callable[[str], Any]) -> Callable[[str], Any]:
    def encode_and_note(query: str) -> Any:
        calls.append(name)
        return encode(query)

    return encode_and_note


def test_agent_changes_over_when_its_own_episodes_are_complete(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(services, "alice", "the lighthouse")
    store(services, "boris", "the lighthouse")
    workshop.drain()
    assert best(services, "alice", "the lighthouse")
    target = migration().begin(encoders[OTHER], "/models/other")
    # Boris is not done: a worker for him is missing.
    sql("INSERT INTO memory_system.agent_models (agent_id, model_id) VALUES ('alice', %s)", target.model_id)
    sql("SELECT memory_system.enqueue_for_model('alice', %s::smallint, 10)", target.model_id)
    workshop.drain()
    models = services.search._encoder.models()
    while models.target is None:
        models = services.search._encoder.models()
    calls: list[str] = []
    for name, encoder in (("old", encoders[DEFAULT_SHA256]), ("new", encoders[OTHER])):
        monkeypatch.setattr(encoder, "encode_query", noting(calls, name, encoder.encode_query))
    assert best(services, "alice", "the lighthouse?") == ("the lighthouse", 1.0)
    assert best(services, "boris", "the lighthouse!") == ("the lighthouse", 1.0)
    assert calls == ["new", "old"]


def test_write_edit_and_deletion_during_the_migration_reach_both_models(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    first, second = store(services, "alice", "one", "two")
    workshop.drain()
    migrating = migration()
    target = migrating.begin(encoders[OTHER], "/models/other")
    store(services, "alice", "three")
    edit(services.database, "alice", first, "one, edited")
    sql("DELETE FROM nexus_memory.zep_episodic_memory WHERE episode_id = %s", str(second))
    with Working(workshop):
        assert migrating.embed(target) == 0
    assert vectors(sql) == {1: 2, 2: 2}
    stale = sql.one(
        "SELECT count(*) FROM nexus_memory.episode_chunks c JOIN nexus_memory.zep_episodic_memory e USING (episode_id)"
        " WHERE c.input_sha256 <> e.input_sha256"
    )
    assert stale == 0
    migrating.activate(target)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_run_that_is_killed_goes_on_where_it_stood(
    steps: int, services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    for agent in ("alice", "boris", "carla"):
        store(services, agent, *(f"{agent} {n}" for n in range(5)))
    workshop.drain()
    seen: list[Progress] = []

    def kill(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == steps:
            raise Killed

    with pytest.raises(Killed):
        run(migration(kill), encoders[OTHER])
    with Working(workshop):
        run(migration(), encoders[OTHER])
    assert vectors(sql) == {1: 15, 2: 15}
    assert sql("SELECT max(retry_count)::int, count(*)::int FROM memory_system.embeddings_queue WHERE model_id = 2") == [(1, 15)]


def test_rollback_leaves_nothing_and_the_old_model_serves(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    store(services, "alice", "the lighthouse", "the harbour")
    workshop.drain()
    migrating = migration()
    target = migrating.begin(encoders[OTHER], "/models/other")
    with Working(workshop):
        migrating.embed(target)
    store(services, "alice", "the weir")
    assert migrating.rollback() == "fake"
    assert vectors(sql) == {1: 2}
    assert sql("SELECT DISTINCT model_id FROM memory_system.embeddings_queue") == [(1,)]
    assert sql("SELECT count(*)::int FROM memory_system.agent_models") == [(0,)]
    workshop.drain()
    assert best(services, "alice", "the weir") == ("the weir", 1.0)
    with pytest.raises(NotFound):
        migrating.rollback()


def test_way_back_embeds_only_what_came_or_changed_since(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    first, *_ = store(services, "alice", *(f"text {n}" for n in range(10)))
    workshop.drain()
    with Working(workshop):
        run(migration(), encoders[OTHER])
    store(services, "alice", "written under the new model")
    edit(services.database, "alice", first, "edited under the new model")
    workshop.drain()
    encoders[DEFAULT_SHA256].calls.clear()
    with Working(workshop):
        run(migration(), encoders[DEFAULT_SHA256], "")
    assert sum(encoders[DEFAULT_SHA256].calls) == 2
    assert vectors(sql)[1] == 11
    assert best(services, "alice", "edited under the new model") == ("edited under the new model", 1.0)
    migrating = migration()
    with pytest.raises(Conflict):
        migrating.drop(1)
    assert migrating.drop(2) > 0
    assert vectors(sql) == {1: 11}


def test_model_that_is_not_complete_does_not_become_active(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    store(services, "alice", "poison", "fine")
    workshop.drain()

    def refuse(texts: Any) -> None:
        if "poison" in texts:
            raise RuntimeError

    encoders[OTHER].before = refuse
    migrating = migration()
    target = migrating.begin(encoders[OTHER], "/models/other")
    with pytest.raises(Conflict, match="1 agents are not complete"):
        migrating.activate(target)
    sql("SELECT memory_system.enqueue_for_model('alice', %s::smallint, 10)", target.model_id)
    workshop.drain(waits=True)
    assert migrating.embed(target) == 1
    with pytest.raises(Conflict):
        migrating.activate(target)
    assert migrating.embed(target, accepts_dead=True) == 1
    migrating.activate(target)
    assert services.integrity.identity().drift == 0
    with pytest.raises(Conflict, match="active model already"):
        migrating.begin(encoders[OTHER], "/models/other")


def test_second_migration_waits_for_the_first(services: Services, migration: Migrate, encoders: dict[str, FakeEncoder]) -> None:
    migrating = migration()
    first = migrating.begin(encoders[OTHER], "/models/other")
    assert migrating.begin(encoders[OTHER], "/models/other") == first
    with pytest.raises(Conflict, match="under way"):
        migrating.begin(FakeEncoder("b" * 64, 64), "/models/third")


def test_semantic_memory_is_embedded_anew_when_the_model_is_active(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    sql("INSERT INTO nexus_memory.semantic_memories (agent_id, concept, definition) VALUES ('alice', 'tide', 'the sea moves')")
    store(services, "alice", "one")
    workshop.drain()
    for encoder, source in ((encoders[OTHER], "/models/other"), (encoders[DEFAULT_SHA256], ""), (encoders[OTHER], "/models/other")):
        with Working(workshop):
            target = run(migration(), encoder, source)
        workshop.drain()
        assert sql("SELECT embedding_version, vector_dims(embedding) FROM nexus_memory.semantic_memories") == [
            (target.version, target.dimensions)
        ]


def test_worker_without_the_new_model_gives_its_rows_back_uncharged(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(services, "alice", "one")
    workshop.drain()
    target = migration().begin(encoders[OTHER], "/models/other")
    sql("SELECT memory_system.enqueue_for_model('alice', %s::smallint, 10)", target.model_id)

    def missing(_: EmbeddingModel) -> FakeEncoder:
        raise ConfigurationError("not on this machine")

    monkeypatch.setattr(workshop.embedding, "_load", missing)
    (batch,) = workshop.claim()
    assert workshop.process(batch).lost == 1
    assert sql("SELECT state, retry_count::int, last_error, due_at > now() FROM memory_system.embeddings_queue WHERE model_id = 2") == [
        ("pending", 0, "model_missing: configuration_error", True)
    ]


ACTIVE = EmbeddingModel(1, "all-MiniLM-L6-v2", "v", 384, DEFAULT_SHA256)


def test_shipped_model_is_found_and_another_one_is_refused_by_name() -> None:
    assert find_source("", ACTIVE) == ""
    other = EmbeddingModel(2, "other", "v", 64, OTHER)
    with pytest.raises(ConfigurationError, match="sha256"):
        find_source("", other)


def test_every_vector_names_the_fingerprint_of_its_model(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, "alice", "one")
    workshop.drain()
    assert sql("SELECT DISTINCT m.fingerprint FROM nexus_memory.episode_chunks JOIN memory_system.embedding_models m USING (model_id)") == [
        (DEFAULT_SHA256,)
    ]


def test_edit_and_its_undoing_under_the_other_model_are_embedded_on_the_way_back(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    """The text is what the old model embedded once, and its vector went with the edit in between."""
    (episode_id,) = store(services, "alice", "as it was")
    workshop.drain()
    with Working(workshop):
        run(migration(), encoders[OTHER])
        edit(services.database, "alice", episode_id, "changed")
        edit(services.database, "alice", episode_id, "as it was")
        run(migration(), encoders[DEFAULT_SHA256], "")
    assert vectors(sql)[1] == 1
    assert best(services, "alice", "as it was") == ("as it was", 1.0)


def test_agents_that_never_stop_writing_and_agents_that_come_late_change_over(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    store(services, "alice", *(f"text {n}" for n in range(20)))
    workshop.drain()
    stop = threading.Event()

    def write_on() -> None:
        number = 0
        while not stop.wait(0.03):
            number += 1
            store(services, "alice", f"more {number}")
            store(services, f"late-{number % 50}", f"hello {number}")

    writing = threading.Thread(target=write_on)
    writing.start()
    try:
        with Working(workshop):
            run(migration(), encoders[OTHER])
    finally:
        stop.set()
        writing.join()
    workshop.drain()
    assert services.integrity.identity().drift == 0
    unembedded = sql.one(
        "SELECT count(*) FROM nexus_memory.zep_episodic_memory e WHERE NOT EXISTS"
        " (SELECT 1 FROM nexus_memory.episode_chunks c WHERE c.episode_id = e.episode_id AND c.model_id = 2)"
    )
    assert unembedded == 0


def test_rollback_in_the_middle_of_a_migration_is_refused_and_a_lost_lock_activates_nothing(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    store(services, "alice", "one")
    workshop.drain()
    running, other = migration(), migration()
    with running.alone():
        target = running.begin(encoders[OTHER], "/models/other")
        with pytest.raises(Conflict, match="is running"), other.alone():
            raise AssertionError
        with Working(workshop):
            running.embed(target)
        # As if PostgreSQL had restarted, and the lock with it.
        other.rollback()
        with pytest.raises(Conflict, match="not in use"):
            running._enqueue("alice", target, None).__next__()
        with pytest.raises(Conflict):
            running.activate(target)
    assert sql("SELECT model_id::int FROM memory_system.embedding_models WHERE is_active") == [(1,)]
    with other.alone():
        pass


def test_drop_that_was_killed_leaves_no_work_that_claims_vectors_it_has_not(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    store(services, "alice", *(f"text {n}" for n in range(30)))
    workshop.drain()
    with Working(workshop):
        run(migration(), encoders[OTHER])
        run(migration(), encoders[DEFAULT_SHA256], "")
    for _ in range(4):
        sql("SELECT memory_system.drop_model_work(2::smallint, 10)")
    assert sql("SELECT count(*)::int FROM memory_system.embeddings_queue WHERE model_id = 2") == [(0,)]
    assert vectors(sql)[2] == 20
    with Working(workshop):
        run(migration(), encoders[OTHER])
    assert vectors(sql) == {1: 30, 2: 30}


def test_work_of_a_model_that_is_not_in_use_is_neither_claimed_nor_replayed_nor_kept(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    store(services, "alice", "one", "two")
    workshop.drain()
    with Working(workshop):
        run(migration(), encoders[OTHER])
    sql("UPDATE memory_system.embeddings_queue SET state = 'dead', last_error = 'x', processed_at = now() WHERE model_id = 1")
    assert sql("SELECT memory_system.replay_dead(NULL, NULL, now(), 10)::int") == [(0,)]
    assert sql("SELECT * FROM memory_system.dead_causes()") == sql("SELECT * FROM memory_system.dead_rows(NULL, NULL, 10)") == []
    sql("UPDATE memory_system.embeddings_queue SET state = 'pending' WHERE model_id = 1")
    assert workshop.claim() == []
    workshop.queue.enqueue_missing()
    assert sql("SELECT DISTINCT model_id::int FROM memory_system.embeddings_queue") == [(2,)]


def test_api_that_cannot_load_the_new_model_says_so_and_tries_again(
    services: Services, monkeypatch: pytest.MonkeyPatch, encoders: dict[str, FakeEncoder]
) -> None:
    active = EmbeddingModel(1, "a", "a", 384, DEFAULT_SHA256)
    target = EmbeddingModel(2, "b", "b", 64, OTHER, "/models/other", is_active=False)
    in_use = [ModelsInUse(active, target)]
    is_missing = [True]

    def load(model: EmbeddingModel) -> FakeEncoder:
        if model.model_id == 2 and is_missing[0]:
            raise EncoderUnavailable("not here")
        return encoders[model.fingerprint]

    query_encoder = QueryEncoder(load, lambda: in_use[0])
    query_encoder._look()
    assert query_encoder.ready() == (True, "")
    in_use[0] = ModelsInUse(replace(target, is_active=True))
    query_encoder._look()
    assert query_encoder.ready() == (False, "not here")
    with pytest.raises(EncoderUnavailable, match="not here"):
        query_encoder.models(patience_seconds=0)
    is_missing[0] = False
    monkeypatch.setattr("app.search.encoding._RETRY_SECONDS", 0.0)
    query_encoder._look()
    assert query_encoder.models(0).active.model_id == 2
