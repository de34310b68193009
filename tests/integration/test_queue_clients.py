"""Clients' open transactions against workers: neither waits for the other for long, and no client is the victim of a deadlock."""

import threading
from collections.abc import Sequence
from contextlib import closing
from uuid import UUID

import pytest
from sqlalchemy import text

from app.bootstrap import Services
from app.embedding import repository as embedding_repository
from app.errors import DatabaseUnavailable
from app.queue import repository
from tests.factories.episodes import edit, new_episode, stored_row, vector_text
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

OLD, NEW = "the old text about badgers", "the new text about lighthouses"
HELD = "UPDATE nexus_memory.zep_episodic_memory SET importance_score = 0.6 WHERE episode_id = %s"
EDIT = f"UPDATE nexus_memory.zep_episodic_memory SET content = '{NEW}' WHERE episode_id = %s"


def held_by_a_client(statement: str, services: Services, workshop: Workshop, servers: TestServers, sql: Sql, *, commits: bool) -> UUID:
    """Let a client's open transaction hold the row while the worker finishes; the worker must not wait for it."""
    episode_id = services.episodes.store("alice", new_episode(OLD)).episode_id
    free = services.episodes.store("alice", new_episode("another episode")).episode_id
    batches = workshop.claim()
    with closing(servers.superuser(sql.one("SELECT current_database()"))) as client, client.cursor() as cursor:

        def hold(_: Sequence[str]) -> None:
            workshop.encoder.before = lambda _: None
            cursor.execute("BEGIN")
            cursor.execute(statement, (str(episode_id),))

        workshop.encoder.before = hold
        finished: list[int] = []
        worker = threading.Thread(target=lambda: finished.extend(workshop.process(batch).done for batch in batches))
        worker.start()
        worker.join(timeout=2)
        was_stuck = worker.is_alive()
        cursor.execute("COMMIT" if commits else "ROLLBACK")
        worker.join()
    assert not was_stuck, "the worker waited for the client"
    assert sum(finished) == 1
    assert stored_row(sql, free).state == "done"
    return episode_id


def test_row_held_by_a_client_goes_back_uncharged_and_soon(services: Services, workshop: Workshop, servers: TestServers, sql: Sql) -> None:
    episode_id = held_by_a_client(HELD, services, workshop, servers, sql, commits=False)
    row = stored_row(sql, episode_id)
    assert (row.state, row.retry_count, row.solo, row.claim_token, row.last_error) == ("pending", 0, False, None, None)
    assert 0 < row.due_in_seconds <= 1.0
    assert vector_text(sql, episode_id) == "none"
    workshop.make_due()
    assert workshop.drain() == 1


def test_mutant_that_waits_for_clients_is_held_up(
    services: Services, workshop: Workshop, servers: TestServers, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        embedding_repository._LOCKS, "episodic", text(embedding_repository._LOCKS["episodic"].text.replace("SKIP LOCKED", ""))
    )
    with pytest.raises(AssertionError, match="waited for the client"):
        held_by_a_client(HELD, services, workshop, servers, sql, commits=False)


def test_change_that_commits_during_the_finish_wins(services: Services, workshop: Workshop, servers: TestServers, sql: Sql) -> None:
    episode_id = held_by_a_client(HELD, services, workshop, servers, sql, commits=True)
    workshop.make_due()
    workshop.drain()
    assert vector_text(sql, episode_id) == "present"


def test_edit_that_commits_during_the_finish_wins(services: Services, workshop: Workshop, servers: TestServers, sql: Sql) -> None:
    """The edit holds episode and queue row; the worker waits for neither."""
    episode_id = held_by_a_client(EDIT, services, workshop, servers, sql, commits=True)
    row = stored_row(sql, episode_id)
    assert (row.state, row.generation, row.retry_count) == ("pending", 2, 0)
    assert vector_text(sql, episode_id) == "none"
    workshop.drain()
    assert vector_text(sql, episode_id) == "present"


def test_edit_that_is_rolled_back_during_the_finish_leaves_the_row_to_its_lease(
    services: Services, workshop: Workshop, servers: TestServers, sql: Sql
) -> None:
    episode_id = held_by_a_client(EDIT, services, workshop, servers, sql, commits=False)
    assert stored_row(sql, episode_id).state == "processing"
    sql("UPDATE memory_system.embeddings_queue SET lease_until = now() - interval '1 s' WHERE state = 'processing'")
    workshop.queue.reap()
    assert workshop.drain() == 1


@pytest.mark.parametrize("step", ["finish", "fail", "crash", "renew", "out of memory"])
def test_client_that_edits_a_whole_batch_is_never_the_victim_of_a_deadlock(
    step: str, services: Services, workshop: Workshop, servers: TestServers, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction edits an episode, the worker meets it there, then the transaction edits the others."""
    ids = sorted(services.episodes.store("alice", new_episode(f"text {n}")).episode_id for n in range(6))
    (batch,) = workshop.claim()
    middle = ids[3]
    with closing(servers.superuser(sql.one("SELECT current_database()"))) as client, client.cursor() as cursor:

        def meet(_: Sequence[str]) -> None:
            workshop.encoder.before = lambda _: None
            cursor.execute("BEGIN")
            cursor.execute(EDIT, (str(middle),))
            if step == "fail":
                workshop.encoder.before = lambda _: 1 / 0
                raise ValueError
            if step == "out of memory":
                raise MemoryError

        def work() -> None:
            if step == "crash":
                meet([])
                workshop.queue.release_crashed(batch.claim, "worker_lost: X")
            elif step == "renew":
                meet([])
                with workshop.database.transaction() as connection:
                    repository.renew(connection, batch.claim, 45)
            else:
                workshop.encoder.before = meet
                workshop.process(batch)

        worker = threading.Thread(target=work)
        worker.start()
        worker.join(timeout=1)
        for episode_id in (*ids[4:], *ids[:3]):
            cursor.execute(EDIT, (str(episode_id),))
        cursor.execute("COMMIT")
        worker.join()
    workshop.encoder.before = lambda _: None
    assert [stored_row(sql, episode_id).state for episode_id in ids] == ["pending"] * 6
    assert workshop.drain() == 6
    assert {vector_text(sql, episode_id) for episode_id in ids} == {"present"}


def test_edits_and_workers_in_opposite_order_do_not_deadlock(
    services: Services, workshop: Workshop, servers: TestServers, sql: Sql
) -> None:
    ids = [services.episodes.store("alice", new_episode(f"text {n}")).episode_id for n in range(20)]
    errors: list[DatabaseUnavailable] = []
    stop = threading.Event()

    def edit_all(order: list[UUID]) -> None:
        round_ = 0
        while not stop.is_set() and round_ < 40:
            round_ += 1
            for episode_id in order:
                try:
                    edit(services.database, "alice", episode_id, f"text {round_}")
                except DatabaseUnavailable as error:
                    errors.append(error)
                    return

    editors = [threading.Thread(target=edit_all, args=(order,)) for order in (ids, ids[::-1])]
    for editor in editors:
        editor.start()
    while any(editor.is_alive() for editor in editors):
        for batch in workshop.claim():
            workshop.process(batch)
    stop.set()
    for editor in editors:
        editor.join()
    assert errors == []
    workshop.drain(waits=True)
    assert {vector_text(sql, episode_id) for episode_id in ids} == {"present"}
    assert {stored_row(sql, episode_id).retry_count for episode_id in ids} == {1}
    assert services.integrity.identity().drift == 0


def test_finished_rows_are_locked_in_one_order(workshop: Workshop) -> None:
    assert "ORDER BY episode_id FOR NO KEY UPDATE SKIP LOCKED" in embedding_repository._LOCKS["episodic"].text
    assert "ORDER BY target_id FOR UPDATE" in repository._OWNED.text
