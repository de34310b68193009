"""Back to the model before, or away with one: nothing of the other model is left that could be served or claimed."""

import pytest

from app.bootstrap import Services
from app.embedding.weights import DEFAULT_SHA256
from app.errors import Conflict, NotFound
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import edit
from tests.factories.model_change import OTHER, Migrate, Working, best, embedded, run, store, vectors
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


def test_rollback_leaves_nothing_and_the_old_model_serves(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    store(services, "alice", "the lighthouse", "the harbour")
    workshop.drain()
    migrating = migration()
    embedded(migrating, encoders[OTHER], workshop)
    store(services, "alice", "the weir")
    assert migrating.rollback().name == "fake"
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


def test_way_back_that_is_given_up_keeps_the_vectors_that_were_there_before_it(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql
) -> None:
    store(services, "alice", *(f"text {n}" for n in range(10)))
    workshop.drain()
    with Working(workshop):
        run(migration(), encoders[OTHER])
    (late,) = store(services, "alice", "written under the new model")
    workshop.drain()
    back = migration()
    back.begin(encoders[DEFAULT_SHA256], "")
    sql("SELECT memory_system.enqueue_for_model('alice', 1::smallint, 10)")
    given_up = back.rollback()
    assert (given_up.model_id, given_up.was_active) == (1, True)
    assert vectors(sql) == {1: 10, 2: 11}
    assert sql("SELECT state, count(*)::int FROM memory_system.embeddings_queue WHERE model_id = 1 GROUP BY 1") == [("done", 10)]
    workshop.drain()
    encoders[DEFAULT_SHA256].calls.clear()
    with Working(workshop):
        run(migration(), encoders[DEFAULT_SHA256], "")
    assert sum(encoders[DEFAULT_SHA256].calls) == 1, "only what came since is embedded"
    assert sql.one("SELECT count(*) FROM nexus_memory.episode_chunks WHERE episode_id = %s AND model_id = 1", str(late)) == 1


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
