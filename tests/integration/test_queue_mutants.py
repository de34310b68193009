"""Guards of the queue, each taken away: a short walk of the state machine, harmless on the real queue, must then find a fault."""

import threading
from collections.abc import Sequence
from contextlib import closing
from uuid import UUID

import psycopg2
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from app.bootstrap import Services
from app.embedding import repository as embedding_repository
from app.queue import repository
from app.queue.models import TargetKind
from tests.factories.episodes import new_episode, stored_row, vector_text
from tests.factories.queue_walks import (
    WALKS,
    Walk,
    batch_too_large,
    change_of_nothing,
    client_that_holds_an_episode,
    crash_of_a_batch,
    deletion,
    edit_in_flight,
    late_report_of_a_crash,
    plain_delivery,
    poison_replayed,
    poison_to_its_end,
    publish_that_fails_too_late,
    reaper_among_live_leases,
    silent_worker,
    walked,
)
from tests.factories.queue_world import World
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


def test_walks_find_no_fault_in_the_real_queue(queue_world: World) -> None:
    for walk in WALKS:
        walked(queue_world, walk)


def without(monkeypatch: pytest.MonkeyPatch, statement: str, guard: str, instead: str = "") -> None:
    """Take a guard out of a statement of the queue."""
    original = getattr(repository, statement).text
    assert guard in original
    monkeypatch.setattr(repository, statement, text(original.replace(guard, instead)))


def function_without(sql: Sql, function: str, guard: str, instead: str = "") -> None:
    """Take a guard out of a function of the database."""
    definition = sql.one("SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.proname = %s", function)
    assert guard in definition
    sql(definition.replace(guard, instead))


def test_mutant_whose_reaper_ignores_leases(queue_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_REAP", "AND lease_until < now()")
    with pytest.raises(AssertionError, match="the reaper took what had not expired"):
        walked(queue_world, reaper_among_live_leases)


def test_mutant_whose_start_charges_nothing(queue_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_START", "q.retry_count + 1", "q.retry_count")
    with pytest.raises(AssertionError, match=r"plain row: .* became "):
        walked(queue_world, plain_delivery)


def test_mutant_whose_finish_charges_again(queue_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_DONE", "SET state = 'done'", "SET retry_count = retry_count + 1, state = 'done'")
    with pytest.raises(AssertionError, match=r"plain row: .* became "):
        walked(queue_world, plain_delivery)


@pytest.mark.parametrize(("statement", "walk"), [("_CRASH", crash_of_a_batch), ("_REAP", silent_worker)])
def test_mutant_whose_crashed_rows_stay_together(statement: str, walk: Walk, queue_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, statement, "solo = q.solo OR q.started_at IS NOT NULL", "solo = q.solo")
    with pytest.raises(AssertionError, match="crashed: "):
        walked(queue_world, walk)


def test_mutant_whose_crashes_cost_nothing(queue_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_CRASH", "ELSE now() END, solo", "ELSE now() END, retry_count = 0, solo")
    with pytest.raises(AssertionError, match="crashed: "):
        walked(queue_world, crash_of_a_batch)


def test_mutant_whose_failures_never_die(queue_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without(
        monkeypatch, "_FAIL", "WHEN q.retry_count >= :max_attempts THEN 'dead'", "WHEN false AND q.retry_count >= :max_attempts THEN 'dead'"
    )
    with pytest.raises(AssertionError, match=r"poison row: .* became "):
        walked(queue_world, poison_to_its_end)


def test_mutant_whose_failures_do_not_wait(queue_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_FAIL", "(0.75 + random() / 2)", "0 * (0.75 + random() / 2)")
    with pytest.raises(AssertionError, match="retry: a charged row waits or goes alone"):
        walked(queue_world, poison_to_its_end)


def test_mutant_whose_refund_keeps_the_charge(queue_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_REFUND", "CASE WHEN q.started_at IS NULL THEN 0 ELSE 1 END", "0")
    for walk in (batch_too_large, client_that_holds_an_episode):
        with pytest.raises(AssertionError, match=r"row: .* became "):
            walked(queue_world, walk)


def test_mutant_whose_edit_keeps_the_claim(queue_world: World) -> None:
    sql = queue_world.sql
    function_without(sql, "trigger_generate_embedding_row", "state = 'pending', ")
    function_without(sql, "trigger_generate_embedding_row", "claim_token = NULL, started_at = NULL,")
    function_without(sql, "trigger_generate_embedding_row", "lease_until = NULL, ")
    with pytest.raises(AssertionError, match="new input: new work is pending"):
        walked(queue_world, edit_in_flight)


def test_mutant_whose_trigger_makes_work_of_every_update(queue_world: World) -> None:
    queue_world.sql(
        "CREATE OR REPLACE TRIGGER auto_update_embedding AFTER UPDATE ON nexus_memory.zep_episodic_memory"
        " FOR EACH ROW EXECUTE FUNCTION nexus_memory.trigger_generate_embedding_row()"
    )
    with pytest.raises(AssertionError, match=r"a change of nothing made work|a worker finished work"):
        walked(queue_world, change_of_nothing)


def test_mutant_without_the_insert_trigger(queue_world: World) -> None:
    queue_world.sql("DROP TRIGGER auto_generate_embedding ON nexus_memory.zep_episodic_memory")
    with pytest.raises(AssertionError, match="I1: an episode has neither its vector nor work"):
        walked(queue_world, lambda machine: machine.start(["plain"]))


def test_mutant_without_the_delete_trigger(queue_world: World) -> None:
    queue_world.sql("DROP TRIGGER auto_clear_queue ON nexus_memory.zep_episodic_memory")
    with pytest.raises(AssertionError, match="I1: work is left for an episode that is gone"):
        walked(queue_world, deletion)


def test_mutant_whose_replay_keeps_the_attempts(queue_world: World) -> None:
    function_without(queue_world.sql, "replay_dead", "retry_count = 0, ")
    with pytest.raises(AssertionError, match="I5: attempts beyond the last, or death before it"):
        walked(queue_world, poison_replayed)


def test_mutant_whose_stale_reports_take_rows_back(queue_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_CRASH", "AND claim_token = :token")
    with pytest.raises(AssertionError, match="a stale token took rows back"):
        walked(queue_world, late_report_of_a_crash)


def test_mutant_whose_failed_publish_gives_back_started_rows(queue_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_GIVE_BACK", "AND started_at IS NULL")
    with pytest.raises(AssertionError, match="gave back what a worker had started"):
        walked(queue_world, publish_that_fails_too_late)


def claimed_beside_a_client(services: Services, workshop: Workshop, servers: TestServers, sql: Sql) -> None:
    """A client's open transaction holds the first row of the queue: the others are claimed without waiting for it."""
    held, free = (services.episodes.store("alice", new_episode(content)).episode_id for content in ("one", "two"))
    taken: list[UUID] = []
    with closing(servers.superuser(sql.one("SELECT current_database()"))) as client, client.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT 1 FROM memory_system.embeddings_queue WHERE target_id = %s FOR UPDATE", (str(held),))
        claim = threading.Thread(target=lambda: taken.extend(i for batch in workshop.claim() for i in batch.claim.target_ids))
        claim.start()
        claim.join(timeout=1)
        was_stuck = claim.is_alive()
        cursor.execute("ROLLBACK")
        claim.join()
    assert not was_stuck, "the dispatcher waited for the client"
    assert taken == [free]


def test_claim_does_not_wait_for_a_client(services: Services, workshop: Workshop, servers: TestServers, sql: Sql) -> None:
    claimed_beside_a_client(services, workshop, servers, sql)


def test_mutant_whose_claim_waits_for_clients(
    services: Services, workshop: Workshop, servers: TestServers, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "_CLAIM", "FOR UPDATE SKIP LOCKED", "FOR UPDATE")
    with pytest.raises(AssertionError, match="waited for the client"):
        claimed_beside_a_client(services, workshop, servers, sql)


def finished_beside_an_edit(services: Services, workshop: Workshop, servers: TestServers, sql: Sql) -> None:
    """A client holds the episode, the worker finishes it, the client edits it: episode first, then queue row, whoever it is."""
    episode_id = services.episodes.store("alice", new_episode("one")).episode_id
    (batch,) = workshop.claim()
    worker = threading.Thread(target=workshop.process, args=(batch,))
    with closing(servers.superuser(sql.one("SELECT current_database()"))) as client, client.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT 1 FROM nexus_memory.zep_episodic_memory WHERE episode_id = %s FOR UPDATE", (str(episode_id),))
        worker.start()
        worker.join(timeout=1)
        was_stuck = worker.is_alive()
        try:
            cursor.execute("UPDATE nexus_memory.zep_episodic_memory SET content = 'two' WHERE episode_id = %s", (str(episode_id),))
        finally:
            cursor.execute("COMMIT")
            worker.join()
    assert not was_stuck, "the worker waited for the client"
    workshop.drain(waits=True)
    assert vector_text(sql, episode_id) == "present"
    assert stored_row(sql, episode_id).retry_count == 1


def test_finish_beside_an_edit_does_not_deadlock(services: Services, workshop: Workshop, servers: TestServers, sql: Sql) -> None:
    finished_beside_an_edit(services, workshop, servers, sql)


def test_mutant_whose_finish_locks_the_queue_first_deadlocks(
    services: Services, workshop: Workshop, servers: TestServers, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the episode while it holds the row that the client's trigger needs: PostgreSQL ends one of the two."""
    statement = embedding_repository._LOCKS["episodic"].text
    monkeypatch.setitem(embedding_repository._LOCKS, "episodic", text(statement.replace(" SKIP LOCKED", "")))
    lock_targets = embedding_repository.lock_targets
    victims: list[Exception] = []

    def queue_first(connection: Connection, kind: TargetKind, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        try:
            connection.execute(text("SELECT 1 FROM memory_system.embeddings_queue ORDER BY target_id FOR UPDATE"))
            return lock_targets(connection, kind, ids)
        except OperationalError as error:
            victims.append(error)
            raise

    monkeypatch.setattr(embedding_repository, "lock_targets", queue_first)
    try:
        with pytest.raises(AssertionError, match="waited for the client"):
            finished_beside_an_edit(services, workshop, servers, sql)
    except psycopg2.errors.DeadlockDetected as error:
        victims.append(error)
    assert ["deadlock detected" in str(victim) for victim in victims] == [True]


def encoded_for_each_agent(services: Services, workshop: Workshop) -> None:
    """Two agents hold the same text: the second's is encoded too, or its speed would tell that the first has it."""
    for agent_id in ("alice", "bob"):
        services.episodes.store(agent_id, new_episode("the same words"))
        assert workshop.drain() == 1
    assert len(workshop.encoder.calls) == 2, "one agent's vector served another"


def test_vector_is_reused_within_an_agent_only(services: Services, workshop: Workshop) -> None:
    encoded_for_each_agent(services, workshop)
    services.episodes.store("alice", new_episode("the same words"))
    assert workshop.drain() == 1
    assert len(workshop.encoder.calls) == 2


def test_mutant_that_reuses_vectors_across_agents(services: Services, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = "c.agent_id = w.agent_id AND "
    assert guard in embedding_repository._KNOWN.text
    monkeypatch.setattr(embedding_repository, "_KNOWN", text(embedding_repository._KNOWN.text.replace(guard, "")))
    with pytest.raises(AssertionError, match="one agent's vector served another"):
        encoded_for_each_agent(services, workshop)
