"""Semantic memories: the same queue as episodes, versions, isolation, and an accounting of their own."""

from uuid import uuid4

import pytest

from app.bootstrap import Services
from app.errors import Conflict, InvalidRequest, NotFound
from app.semantic.models import NewSemanticMemory
from tests.factories.episodes import new_episode, queue_row
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

KETTLE = NewSemanticMemory("kettle", "a vessel for boiling water", {"kind_of": ["vessel"]}, 0.75)


def test_memory_is_embedded_through_the_queue(services: Services, workshop: Workshop, sql: Sql) -> None:
    made = services.semantic.store("alice", KETTLE)
    assert (made.version, made.embedding_state, made.language) == (1, "pending", "en")
    assert workshop.drain() == 1
    stored = services.semantic.get("alice", made.memory_id)
    assert stored.embedding_state == "done"
    assert (stored.concept, stored.definition, stored.relationships, stored.confidence_score) == (
        KETTLE.concept,
        KETTLE.definition,
        KETTLE.relationships,
        KETTLE.confidence_score,
    )
    assert sql.one("SELECT embedding_sha256 = input_sha256 AND embedding IS NOT NULL FROM nexus_memory.semantic_memories")


def test_new_words_are_a_new_version_and_other_fields_are_not(services: Services, workshop: Workshop, sql: Sql) -> None:
    made = services.semantic.store("alice", KETTLE)
    workshop.drain()
    same = services.semantic.change("alice", made.memory_id, {"confidence_score": 0.1, "relationships": {}, "language": "es"})
    assert (same.version, same.embedding_state, same.confidence_score, same.relationships) == (1, "done", 0.1, {})
    other = services.semantic.change("alice", made.memory_id, {"concept": "teapot"})
    assert (other.version, other.embedding_state, other.definition) == (2, "pending", KETTLE.definition)
    assert sql.one("SELECT embedding IS NULL AND embedding_sha256 IS NULL FROM nexus_memory.semantic_memories")
    with pytest.raises(Conflict):
        services.semantic.change("alice", made.memory_id, {"concept": "late"}, expected_version=1)
    workshop.drain()
    assert services.semantic.get("alice", made.memory_id).embedding_state == "done"


def test_edit_while_a_worker_encodes_keeps_the_old_vector_out(services: Services, workshop: Workshop, sql: Sql) -> None:
    made = services.semantic.store("alice", KETTLE)
    workshop.announce()
    (batch,) = workshop.claim()
    services.semantic.change("alice", made.memory_id, {"definition": "something else"})
    assert workshop.process(batch).done == 0
    assert sql.one("SELECT embedding IS NULL FROM nexus_memory.semantic_memories")
    workshop.drain()
    assert sql.one("SELECT embedding_sha256 = input_sha256 FROM nexus_memory.semantic_memories")


def test_deletion_takes_the_work_along(services: Services, workshop: Workshop, sql: Sql) -> None:
    made = services.semantic.store("alice", KETTLE)
    workshop.announce()
    (batch,) = workshop.claim()
    services.semantic.delete("alice", made.memory_id)
    assert queue_row(sql, made.memory_id) is None
    assert workshop.process(batch).done == 0
    for attempt in (
        lambda: services.semantic.get("alice", made.memory_id),
        lambda: services.semantic.delete("alice", made.memory_id),
    ):
        with pytest.raises(NotFound):
            attempt()


def test_sources_must_be_episodes_of_the_agent(services: Services) -> None:
    own = services.episodes.store("alice", new_episode()).episode_id
    of_bob = services.episodes.store("bob", new_episode()).episode_id
    made = services.semantic.store("alice", NewSemanticMemory("a", "b", source_episodes=(own,)))
    assert made.source_episodes == [own]
    for foreign in (of_bob, uuid4()):
        with pytest.raises(InvalidRequest) as refused:
            services.semantic.store("alice", NewSemanticMemory("a", "b", source_episodes=(own, foreign)))
        assert refused.value.details["errors"][0]["code"] == "unknown_episode"
        with pytest.raises(InvalidRequest):
            services.semantic.change("alice", made.memory_id, {"source_episodes": [foreign]})


def test_another_agents_memory_is_not_there(services: Services) -> None:
    made = services.semantic.store("alice", KETTLE)
    for attempt in (
        lambda: services.semantic.get("bob", made.memory_id),
        lambda: services.semantic.change("bob", made.memory_id, {"concept": "mine"}),
        lambda: services.semantic.delete("bob", made.memory_id),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert services.semantic.list_page("bob", 10) == ([], None)
    assert services.semantic.get("alice", made.memory_id).concept == "kettle"


def test_list_is_newest_first_in_pages(services: Services) -> None:
    for number in range(5):
        services.semantic.store("alice", NewSemanticMemory(f"c{number % 2}", f"d{number}"))
    first, after = services.semantic.list_page("alice", 2)
    second, _ = services.semantic.list_page("alice", 5, after=after)
    assert [view.definition for view in first + second] == ["d4", "d3", "d2", "d1", "d0"]
    assert [view.definition for view in services.semantic.list_page("alice", 5, concept="c1")[0]] == ["d3", "d1"]


def test_accounting_of_semantic_memories(services: Services, workshop: Workshop, sql: Sql) -> None:
    made = [services.semantic.store(agent_id, KETTLE) for agent_id in ("alice", "alice", "bob")]
    identity = "SELECT stored, searchable, pending, processing, dead, drift FROM memory_system.semantic_identity(%s)"
    assert sql(identity, None) == [(3, 0, 3, 0, 0, 0)]
    workshop.drain()
    assert sql(identity, "alice") == [(2, 2, 0, 0, 0, 0)]
    sql("DELETE FROM memory_system.embeddings_queue WHERE target_id = %s", str(made[0].memory_id))
    sql("DELETE FROM nexus_memory.semantic_vectors WHERE memory_id = %s", str(made[0].memory_id))
    assert sql(identity, None) == [(3, 2, 0, 0, 0, 1)]
    assert (services.integrity.semantic_identity().drift, services.integrity.drift()) == (1, 1), "health and the gauge do not see it"
    # Episodes do not count here, nor these there.
    services.episodes.store("alice", new_episode())
    assert sql(identity, "alice")[0][0] == 2
    assert services.integrity.identity().accepted == 1
