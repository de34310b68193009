"""The embedding model changes in place: every search in between finds, agent by agent, and a killed run goes on."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.bootstrap import Services
from app.embedding.migration import Finished, Progress
from app.embedding.weights import DEFAULT_SHA256
from app.errors import Conflict
from app.search.query import SearchQuery
from app.semantic.models import NewSemanticMemory
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import edit
from tests.factories.model_change import OTHER, Migrate, Working, best, embedded, run, store, vectors
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


def nearest_concept(services: Services, agent_id: str, query: str) -> str | None:
    """Return the concept of the semantic memory nearest to a query, or nothing."""
    found = services.search.search(agent_id, SearchQuery(query, mode="vector", limit=1, memory_types=("semantic",))).results
    return str(found[0].metadata["concept"]) if found else None


class Killed(BaseException):
    """Stands for a kill of the command."""


def test_every_search_finds_while_the_model_changes(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    agents = [f"agent-{n}" for n in range(6)]
    for agent in agents:
        store(services, agent, f"{agent} keeps a lighthouse", "bread rises overnight")
        for number in range(20):
            services.semantic.store(agent, NewSemanticMemory(f"{agent} tower {number}", "shows ships the coast"))
    workshop.drain()
    assert best(services, agents[0], "agent-0 keeps a lighthouse") == ("agent-0 keeps a lighthouse", 1.0)
    stop = threading.Event()
    problems: list[Any] = []

    def search_on() -> None:
        while not stop.is_set():
            for agent in agents:
                if best(services, agent, f"{agent} keeps a lighthouse") != (f"{agent} keeps a lighthouse", 1.0):
                    problems.append(agent)
                if (found := nearest_concept(services, agent, f"{agent} tower 7: shows ships the coast")) != f"{agent} tower 7":
                    problems.append(found)

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
    assert sql("SELECT model_id::int, count(*)::int FROM nexus_memory.semantic_vectors GROUP BY 1 ORDER BY 1") == [(1, 120), (2, 120)]
    # The copies on the rows are of the new model too, and nothing is unaccounted for.
    for table in ("zep_episodic_memory", "semantic_memories"):
        assert sql(f"SELECT DISTINCT embedding_version, vector_dims(embedding) FROM nexus_memory.{table}") == [(target.version, 64)]
    assert services.integrity.identity().drift == 0
    assert sql.one("SELECT drift FROM memory_system.semantic_identity()") == 0
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
        monkeypatch.setattr(encoder, "encode_queries", noting(calls, name, encoder.encode_queries))
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


def test_run_killed_right_after_the_activation_is_finished_by_the_next(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    sql("INSERT INTO nexus_memory.semantic_memories (agent_id, concept, definition) VALUES ('alice', 'tide', 'the sea moves')")
    store(services, "alice", "one", "two")
    workshop.drain()
    killed = migration()
    target = embedded(killed, encoders[OTHER], workshop)
    killed.activate(target)
    again = migration()
    active = again.begin(encoders[OTHER], "/models/elsewhere")
    assert active == replace(target, is_active=True)
    assert again.finish(active) == Finished(enqueued=0, copies=3)
    for table in ("zep_episodic_memory", "semantic_memories"):
        assert sql(f"SELECT DISTINCT embedding_version, vector_dims(embedding) FROM nexus_memory.{table}") == [(target.version, 64)]
    assert services.integrity.identity().drift == 0
    assert again.finish(active) == Finished(enqueued=0, copies=0)


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
    migrating.finish(target)
    assert services.integrity.identity().drift == 0


def test_second_migration_waits_for_the_first(services: Services, migration: Migrate, encoders: dict[str, FakeEncoder]) -> None:
    migrating = migration()
    first = migrating.begin(encoders[OTHER], "/models/other")
    assert migrating.begin(encoders[OTHER], "/models/other") == first
    for encoder in (FakeEncoder("b" * 64, 64), encoders[DEFAULT_SHA256]):
        with pytest.raises(Conflict, match="under way"):
            migrating.begin(encoder, "/models/third")


def test_semantic_memory_follows_each_change_and_is_embedded_once_under_each_model(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    services.semantic.store("alice", NewSemanticMemory("tide", "the sea moves"))
    store(services, "boris", "one")
    workshop.drain()
    for encoder, source in ((encoders[OTHER], "/models/other"), (encoders[DEFAULT_SHA256], ""), (encoders[OTHER], "/models/other")):
        with Working(workshop):
            target = run(migration(), encoder, source)
        assert sql("SELECT embedding_version, vector_dims(embedding) FROM nexus_memory.semantic_memories") == [
            (target.version, target.dimensions)
        ]
        assert nearest_concept(services, "alice", "the sea moves") == "tide"
    assert sql(
        "SELECT model_id::int, generation::int, retry_count::int FROM memory_system.embeddings_queue WHERE target_kind = 'semantic'"
    ) == [
        (1, 1, 1),
        (2, 1, 1),
    ]


def test_semantic_memory_that_dies_under_the_target_keeps_its_agent_on_the_old_model(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    services.semantic.store("alice", NewSemanticMemory("poison", "cannot be encoded"))
    workshop.drain()

    def refuse(texts: Any) -> None:
        if any("poison" in text for text in texts):
            raise RuntimeError

    encoders[OTHER].before = refuse
    migrating = migration()
    target = migrating.begin(encoders[OTHER], "/models/other")
    sql("SELECT memory_system.enqueue_for_model('alice', %s::smallint, 10)", target.model_id)
    workshop.drain(waits=True)
    assert migrating.embed(target) == 1
    with pytest.raises(Conflict, match="1 agents are not complete"):
        migrating.activate(target)
    assert nearest_concept(services, "alice", "cannot be encoded") == "poison"


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
