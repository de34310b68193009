"""Reconciliation of memories with their vectors: what triggers missed, what is of another text, what was put in by hand."""

from uuid import UUID

import pytest

from app.bootstrap import Services
from app.reconcile.service import ReconciliationService, Report
from app.semantic.models import NewSemanticMemory
from tests.factories.episodes import new_episode, vector_text
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql
from tests.factories.workshop import Workshop


def embedded(services: Services, workshop: Workshop, count: int) -> list[UUID]:
    receipts = services.episodes.store_many("alice", [new_episode(f"text {number}") for number in range(count)])
    workshop.drain()
    return [receipt.episode_id for receipt in receipts]


_CHUNK = "nexus_memory.episode_chunks"


VECTOR_DAMAGES: dict[str, str] = {
    "missing": f"DELETE FROM {_CHUNK} WHERE episode_id = %s",
    "stale": f"UPDATE {_CHUNK} SET input_sha256 = sha256('other') WHERE episode_id = %s",
    "torn": "UPDATE nexus_memory.zep_episodic_memory SET embedding_sha256 = NULL WHERE episode_id = %s",
}


@pytest.mark.parametrize("name", VECTOR_DAMAGES)
def test_vector_that_is_not_of_its_episode_is_made_anew(
    name: str, services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql
) -> None:
    ids = embedded(services, workshop, 25)
    assert reconciler.run("vectors") == Report("vectors", dry_run=False, ranges_compared=3)
    sql(TRIGGERS_OFF)
    sql(VECTOR_DAMAGES[name], str(ids[12]))
    sql(TRIGGERS_ON)
    assert reconciler.run("vectors", dry_run=True).found == {name: 1}
    report = reconciler.run("vectors")
    assert (report.ranges_different, report.found, report.repaired) == (1, {name: 1}, {name: 1})
    assert reconciler.run("vectors").found == {}, "what is enqueued is no drift"
    assert workshop.drain() == 1
    assert vector_text(sql, ids[12]) == "present"
    assert services.integrity.identity().drift == 0


def test_episodes_loaded_without_triggers_are_enqueued(
    services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql
) -> None:
    embedded(services, workshop, 3)
    sql(TRIGGERS_OFF)
    sql("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) SELECT 'alice', 'loaded ' || i FROM generate_series(1, 15) i")
    sql(TRIGGERS_ON)
    assert reconciler.run("vectors").repaired == {"missing": 15}
    assert workshop.drain() == 15


def test_swapped_vectors_are_found_by_a_deep_run(
    services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql
) -> None:
    ids = embedded(services, workshop, 12)
    sql(
        f"UPDATE {_CHUNK} c SET embedding = o.embedding FROM {_CHUNK} o"
        " WHERE (c.episode_id, o.episode_id) IN ((%s, %s), (%s, %s))",
        *map(str, (ids[2], ids[5], ids[5], ids[2])),
    )  # fmt: skip
    assert reconciler.run("vectors").found == {}
    assert reconciler.run("vectors", deep=True).repaired == {"altered": 2}
    workshop.drain()
    assert reconciler.run("vectors", deep=True).found == {}
    assert {vector_text(sql, episode_id) for episode_id in ids} == {"present"}


def test_pending_and_dead_work_is_no_drift(services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql) -> None:
    services.episodes.store_many("alice", [new_episode(f"n{number}") for number in range(4)])
    some = "SELECT target_id FROM memory_system.embeddings_queue LIMIT 2"
    sql(f"UPDATE memory_system.embeddings_queue SET state = 'dead', retry_count = 5 WHERE target_id IN ({some})")
    assert reconciler.run("vectors").found == {}
    assert sql.one("SELECT count(*) FROM memory_system.embeddings_queue WHERE state = 'dead'") == 2


_SEMANTIC = "nexus_memory.semantic_vectors"


SEMANTIC_DAMAGES: dict[str, str] = {
    "missing": f"DELETE FROM {_SEMANTIC} WHERE memory_id = %s",
    "stale": f"UPDATE {_SEMANTIC} SET input_sha256 = sha256('other') WHERE memory_id = %s",
    "torn": "UPDATE nexus_memory.semantic_memories SET embedding_sha256 = NULL WHERE memory_id = %s",
    "altered": f"UPDATE {_SEMANTIC} SET embedding = (SELECT array_agg(0.05 * n)::real[]::public.vector FROM generate_series(1, 384) n)"
    " WHERE memory_id = %s",
}


@pytest.mark.parametrize("name", SEMANTIC_DAMAGES)
def test_vector_that_is_not_of_its_semantic_memory_is_made_anew(
    name: str, services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql
) -> None:
    made = [services.semantic.store("alice", NewSemanticMemory(f"concept {n}", f"definition {n}")) for n in range(25)]
    workshop.drain()
    assert reconciler.run("vectors", deep=True).found == {}
    sql(TRIGGERS_OFF)
    sql(SEMANTIC_DAMAGES[name], str(made[12].memory_id))
    sql(TRIGGERS_ON)
    assert reconciler.run("vectors", dry_run=True, deep=True).named == [(name, f"semantic memory {made[12].memory_id}")]
    report = reconciler.run("vectors", deep=True)
    assert (report.ranges_different, report.found, report.repaired) == (1, {name: 1}, {name: 1})
    assert reconciler.run("vectors", deep=True).found == {}, "what is enqueued is no drift"
    assert workshop.drain() == 1
    assert reconciler.run("vectors", deep=True).found == {}
    assert sql.one("SELECT drift FROM memory_system.semantic_identity()") == 0


def test_semantic_memories_loaded_without_triggers_are_enqueued(services: Services, workshop: Workshop, sql: Sql) -> None:
    sql(TRIGGERS_OFF)
    columns, rows = "(agent_id, concept, definition)", "SELECT 'alice', 'c' || i, 'd' FROM generate_series(1, 15) i"
    sql(f"INSERT INTO nexus_memory.semantic_memories {columns} {rows}")
    sql(TRIGGERS_ON)
    assert workshop.queue.enqueue_missing() == 15
    assert workshop.drain() == 15
    assert workshop.queue.enqueue_missing() == 0


def test_semantic_vector_put_in_by_hand_is_found(
    services: Services, workshop: Workshop, reconciler: ReconciliationService, sql: Sql
) -> None:
    for concept in ("kettle", "bread"):
        services.semantic.store("alice", NewSemanticMemory(concept, f"what {concept} is"))
    workshop.drain()
    assert not reconciler.run("vectors", deep=True).found
    other = "(SELECT o.embedding FROM nexus_memory.semantic_vectors o WHERE o.memory_id <> v.memory_id)"
    sql(f"UPDATE nexus_memory.semantic_vectors v SET embedding = {other}, vector_sha256 = sha256(public.vector_send({other}))")
    assert reconciler.run("vectors", deep=True).repaired == {"altered": 2}
    workshop.drain()
    assert not reconciler.run("vectors", deep=True).found
