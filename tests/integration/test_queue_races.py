"""Edits, deletions and second workers at every point of a row's way: the vector of an old text never comes back."""

import re
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.bootstrap import Services
from app.db import Database
from app.embedding import repository as embedding_repository
from app.errors import DatabaseUnavailable
from app.queue import repository
from app.search.query import SearchQuery
from tests.factories.episodes import delete, edit, new_episode, queue_row, stored_row, vector_text
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql
from tests.factories.workshop import Workshop

OLD, NEW = "the old text about badgers", "the new text about lighthouses"


POINTS = ("before the claim", "after the claim", "while encoding", "after encoding")


class Always:
    """Equal to every hash: a check that compares with it is as good as removed."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


def without_token(clause: str) -> str:
    mutant = re.sub(r"AND claim_token = :token\s+AND state = 'processing'", "", clause)
    assert mutant != clause
    # What is not in work is not started either.
    return mutant.replace("AND started_at IS NOT NULL", "")


def at(point: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> int:
    """Take one episode to the given point, act, let the worker go on, and return how many rows it says it finished."""
    if point == "before the claim":
        act()
    (batch,) = workshop.claim()
    if point == "after the claim":
        act()
    if point == "while encoding":
        workshop.encoder.before = lambda _: act()
    if point == "after encoding":
        finish = workshop.embedding._finish_once

        def act_then_finish(*arguments: object) -> list[UUID]:
            monkeypatch.setattr(workshop.embedding, "_finish_once", finish)
            act()
            return finish(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(workshop.embedding, "_finish_once", act_then_finish)
    done = workshop.process(batch).done
    workshop.encoder.before = lambda _: None
    return done


def edited_at(point: str, services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    episode_id = services.episodes.store("alice", new_episode(OLD)).episode_id
    done = at(point, workshop, monkeypatch, lambda: edit(services.database, "alice", episode_id, NEW))
    if point == "before the claim":
        assert done == 1
    else:
        assert done == 0, "a worker finished work that was no longer its own"
        assert vector_text(sql, episode_id) == "none", "the vector of the old text came back"
        row = stored_row(sql, episode_id)
        assert (row.state, row.generation, row.retry_count, row.claim_token) == ("pending", 2, 0, None)
        assert row.due_in_seconds <= 0
    workshop.drain()
    assert vector_text(sql, episode_id) == "present"
    best = services.search.search("alice", SearchQuery(NEW, mode="vector")).results[0]
    assert best.score_breakdown["cosine"] > 0.99


@pytest.mark.parametrize("point", POINTS)
def test_edit_at_any_point_leaves_only_the_new_vector(
    point: str, services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited_at(point, services, workshop, sql, monkeypatch)


@pytest.mark.parametrize("point", ["while encoding", "after encoding"])
def test_mutant_without_token_and_hash_brings_the_old_vector_back(
    point: str, services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_OWNED", text(without_token(repository._OWNED.text)))
    lock_targets = embedding_repository.lock_targets

    def any_hash(*arguments: object) -> dict[UUID, Always]:
        return dict.fromkeys(lock_targets(*arguments), Always())  # type: ignore[arg-type]

    monkeypatch.setattr(embedding_repository, "lock_targets", any_hash)
    with pytest.raises(AssertionError, match="no longer its own"):
        edited_at(point, services, workshop, sql, monkeypatch)


@pytest.mark.parametrize("point", POINTS)
def test_deletion_at_any_point_leaves_nothing(
    point: str, services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    episode_id = services.episodes.store("alice", new_episode(OLD)).episode_id
    other = services.episodes.store("alice", new_episode(NEW)).episode_id
    at(point, workshop, monkeypatch, lambda: delete(services.database, "alice", episode_id))
    workshop.drain()
    assert queue_row(sql, episode_id) is None
    assert sql.one("SELECT count(*) FROM nexus_memory.episode_chunks WHERE episode_id = %s", str(episode_id)) == 0
    assert stored_row(sql, other).state == "done"
    assert services.integrity.identity().drift == 0


def reclaimed(services: Services, workshop: Workshop, sql: Sql) -> None:
    """A slow worker's lease runs out; another one takes the row over; then the slow one wants to finish."""
    episode_id = services.episodes.store("alice", new_episode(OLD)).episode_id
    (batch,) = workshop.claim()

    def lose_the_lease(_: Sequence[str]) -> None:
        workshop.encoder.before = lambda _: None
        sql("UPDATE memory_system.embeddings_queue SET lease_until = now() - interval '1 s'")
        assert workshop.queue.reap() == 1
        (again,) = workshop.claim()
        assert again.claim.token != batch.claim.token

    workshop.encoder.before = lose_the_lease
    assert workshop.process(batch).done == 0, "the slow worker finished a row that another holds"
    row = stored_row(sql, episode_id)
    assert (row.state, row.started_at) == ("processing", None)
    assert vector_text(sql, episode_id) == "none"


def test_worker_that_lost_its_lease_changes_nothing(services: Services, workshop: Workshop, sql: Sql) -> None:
    reclaimed(services, workshop, sql)


def test_mutant_without_the_token_lets_two_workers_finish(
    services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_OWNED", "_DONE"):
        monkeypatch.setattr(repository, name, text(without_token(getattr(repository, name).text)))
    with pytest.raises(AssertionError, match="another holds"):
        reclaimed(services, workshop, sql)


@pytest.mark.parametrize("transition", ["fail", "refund", "crash", "renew", "lock_owned"])
def test_stale_token_changes_no_row(transition: str, services: Services, workshop: Workshop, worker_database: Database, sql: Sql) -> None:
    services.episodes.store("alice", new_episode(OLD))
    (batch,) = workshop.claim()
    sql("UPDATE memory_system.embeddings_queue SET claim_token = gen_random_uuid()")
    before = sql("SELECT xmin::text, * FROM memory_system.embeddings_queue")
    arguments: Any = (batch.claim,)
    with worker_database.transaction() as connection:
        match transition:
            case "fail":
                result: object = repository.fail(
                    connection,
                    *arguments,
                    error="x",
                    max_attempts=5,
                    retry_base_seconds=5,
                    retry_max_seconds=9,
                )
            case "refund":
                result = repository.refund(connection, *arguments, delay_seconds=1)
            case "crash":
                result = repository.crash(connection, *arguments, error="x", max_attempts=5)
            case "renew":
                result = repository.renew(connection, batch.claim, 45)
            case _:
                result = repository.lock_owned(connection, *arguments)
    assert not result
    assert [row[1:] for row in sql("SELECT xmin::text, * FROM memory_system.embeddings_queue")] == [row[1:] for row in before]


def stale_by_hand(services: Services, workshop: Workshop, sql: Sql) -> None:
    """Content changes with triggers off: chunk and hash of the old text stay. Search must not serve them."""
    episode_id = services.episodes.store("alice", new_episode(OLD)).episode_id
    workshop.drain()
    sql(TRIGGERS_OFF)
    sql("UPDATE nexus_memory.zep_episodic_memory SET content = %s WHERE episode_id = %s", NEW, str(episode_id))
    sql(TRIGGERS_ON)
    assert vector_text(sql, episode_id) == "stale"
    assert services.search.search("alice", SearchQuery(OLD, mode="vector")).results == [], "a stale vector was served"
    hybrid = services.search.search("alice", SearchQuery("lighthouses")).results
    assert [hit.score_breakdown["cosine"] for hit in hybrid] == [None], "a stale cosine was served"


def test_stale_vector_is_never_served(services: Services, workshop: Workshop, sql: Sql) -> None:
    stale_by_hand(services, workshop, sql)


HASH_JOIN = {
    "search_by_vector": r"\s+AND (coalesce\(c\.input_sha256 = e\.input_sha256, false\)|e\.input_sha256 = n\.input_sha256)",
    "cosine_of": r"\s+AND c\.input_sha256 = e\.input_sha256",
}


@pytest.mark.parametrize("function", sorted(HASH_JOIN))
def test_mutant_without_the_hash_join_serves_a_stale_vector(function: str, services: Services, workshop: Workshop, sql: Sql) -> None:
    definition = sql.one("SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.proname = %s", function)
    mutant = re.sub(HASH_JOIN[function], "", definition)
    assert mutant != definition
    sql(mutant)
    with pytest.raises(AssertionError, match="stale"):
        stale_by_hand(services, workshop, sql)


def test_hundred_edits_of_one_episode_end_with_one_vector(services: Services, workshop: Workshop, sql: Sql) -> None:
    episode_id = services.episodes.store("alice", new_episode(OLD)).episode_id
    for n in range(100):
        edit(services.database, "alice", episode_id, f"version {n}")
        if n % 10 == 0:
            workshop.drain()
    workshop.drain()
    assert stored_row(sql, episode_id).generation == 101
    assert sql.one("SELECT count(*) FROM nexus_memory.episode_chunks") == 1
    assert sql.one("SELECT count(*) FROM memory_system.ledger") == 101


def finished_unseen(services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks after the commit of a finish: the retry must find the token spent."""
    episode_id = services.episodes.store("alice", new_episode(OLD)).episode_id
    (batch,) = workshop.claim()
    finish = workshop.embedding._finish_once
    calls: list[list[UUID]] = []

    def finish_and_lose_the_answer(*arguments: object) -> list[UUID]:
        calls.append(finish(*arguments))  # type: ignore[arg-type]
        if len(calls) == 1:
            raise DatabaseUnavailable("lost")
        return calls[-1]

    monkeypatch.setattr(workshop.embedding, "_finish_once", finish_and_lose_the_answer)
    workshop.process(batch)
    assert list(map(len, calls)) == [1, 0], "a finish took effect twice"
    assert (stored_row(sql, episode_id).state, stored_row(sql, episode_id).retry_count) == ("done", 1)
    assert vector_text(sql, episode_id) == "present"


def test_commit_that_took_effect_unseen_is_not_repeated(
    services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_unseen(services, workshop, sql, monkeypatch)


def test_mutant_without_the_token_repeats_what_took_effect_unseen(
    services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_OWNED", "_DONE"):
        monkeypatch.setattr(repository, name, text(without_token(getattr(repository, name).text)))
    with pytest.raises(AssertionError, match="took effect twice"):
        finished_unseen(services, workshop, sql, monkeypatch)


def test_connections_cut_under_the_worker_cost_time_only(services: Services, workshop: Workshop, sql: Sql) -> None:
    ids = [services.episodes.store("alice", new_episode(f"text {n}")).episode_id for n in range(3)]

    def cut(_: Sequence[str]) -> None:
        workshop.encoder.before = lambda _: None
        sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'nexus_worker' AND datname = current_database()")

    workshop.encoder.before = cut
    for batch in workshop.claim():
        workshop.process(batch)
    assert {(stored_row(sql, i).state, stored_row(sql, i).retry_count) for i in ids} == {("done", 1)}


def start_is_lost(services: Services, workshop: Workshop, sql: Sql) -> None:
    """PostgreSQL crashes while a worker encodes, and loses the start, whose commit did not wait for the disk, but not the claim."""
    episode_id = services.episodes.store("alice", new_episode(OLD)).episode_id
    (batch,) = workshop.claim()

    def lose_the_start(_: Sequence[str]) -> None:
        workshop.encoder.before = lambda _: None
        sql("UPDATE memory_system.embeddings_queue SET started_at = NULL, retry_count = 0")

    workshop.encoder.before = lose_the_start
    assert workshop.process(batch).done == 0, "work was finished that nobody is known to have started"
    assert (stored_row(sql, episode_id).state, stored_row(sql, episode_id).retry_count) == ("pending", 0)
    assert workshop.drain(waits=True) == 1
    assert stored_row(sql, episode_id).retry_count == 1


def test_start_lost_in_a_crash_is_made_again(services: Services, workshop: Workshop, sql: Sql) -> None:
    start_is_lost(services, workshop, sql)


def test_mutant_that_finishes_unstarted_work_is_noticed(
    services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_OWNED", text(repository._OWNED.text.replace("AND started_at IS NOT NULL", "")))
    with pytest.raises(AssertionError, match="nobody is known"):
        start_is_lost(services, workshop, sql)
