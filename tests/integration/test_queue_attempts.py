"""Attempts: charged once at the start, kept by failures and crashes, refunded when nobody is to blame, five in all."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import text

from app.bootstrap import Services
from app.config import Settings
from app.queue import repository
from app.queue.models import Batch
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import edit, new_episode, stored_row, vector_text
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


class WorkerDied(BaseException):
    """Stands for a kill: nothing after it runs."""


def store(services: Services, *contents: str) -> list[UUID]:
    return [receipt.episode_id for receipt in services.episodes.store_many("alice", [new_episode(content) for content in contents])]


def die(_: Sequence[str]) -> None:
    raise WorkerDied


def fail(_: Sequence[str]) -> None:
    raise RuntimeError("the text was: a secret")


def crash(workshop: Workshop, batch: Batch) -> None:
    workshop.encoder.before = die
    with pytest.raises(WorkerDied):
        workshop.process(batch)
    workshop.encoder.before = lambda _: None


def test_charge_is_made_once_and_stays_as_a_record(services: Services, workshop: Workshop, sql: Sql) -> None:
    ids = store(services, "one", "two", "three")
    (batch,) = workshop.claim()
    outcome = workshop.process(batch)
    assert (outcome.done, outcome.failed, outcome.lost) == (3, 0, 0)
    rows = [stored_row(sql, episode_id) for episode_id in ids]
    assert {(row.state, row.retry_count, row.claim_token, row.last_error) for row in rows} == {("done", 1, None, None)}
    assert all(row.processed_at is not None for row in rows)


def delivered_twice(services: Services, workshop: Workshop, sql: Sql) -> None:
    """The broker delivers a message again while the first delivery encodes."""
    (episode_id,) = store(services, "one")
    (batch,) = workshop.claim()
    again: list[int] = []

    def deliver_again(_: Sequence[str]) -> None:
        workshop.encoder.before = lambda _: None
        again.append(workshop.process(batch).done)

    workshop.encoder.before = deliver_again
    assert workshop.process(batch).done == 1
    assert workshop.process(batch).lost == 1
    assert again == [0]
    assert stored_row(sql, episode_id).retry_count == 1
    assert len(workshop.encoder.calls) == 1


def test_second_delivery_matches_nothing(services: Services, workshop: Workshop, sql: Sql) -> None:
    delivered_twice(services, workshop, sql)


def test_mutant_that_starts_started_rows_works_twice(
    services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_START", text(repository._START.text.replace("AND started_at IS NULL", "")))
    with pytest.raises(AssertionError):
        delivered_twice(services, workshop, sql)


def test_started_work_whose_lease_expires_is_charged_and_goes_alone(services: Services, workshop: Workshop, sql: Sql) -> None:
    ids = store(services, "one", "two")
    (batch,) = workshop.claim()
    crash(workshop, batch)
    assert {stored_row(sql, episode_id).state for episode_id in ids} == {"processing"}
    sql("UPDATE memory_system.embeddings_queue SET lease_until = now() - interval '1 s'")
    assert workshop.queue.reap() == 2
    for episode_id in ids:
        row = stored_row(sql, episode_id)
        assert (row.state, row.retry_count, row.solo, row.last_error) == ("pending", 1, True, "lease_expired: the worker fell silent")
        assert row.due_in_seconds <= 0
    batches = workshop.claim()
    assert [(batch.queue, len(batch.claim.target_ids)) for batch in batches] == [("embed.solo", 1)] * 2
    assert sum(workshop.process(batch).done for batch in batches) == 2
    assert {(row.retry_count, row.solo, row.last_error) for row in (stored_row(sql, i) for i in ids)} == {(2, False, None)}


def test_rows_of_a_worker_known_dead_come_back_at_once(services: Services, workshop: Workshop, sql: Sql) -> None:
    ids = store(services, "one", "two")
    (batch,) = workshop.claim()
    crash(workshop, batch)
    assert workshop.queue.release_crashed(batch.claim, "worker_lost: WorkerLostError") == 2
    assert workshop.queue.release_crashed(batch.claim, "worker_lost: WorkerLostError") == 0
    rows = [stored_row(sql, episode_id) for episode_id in ids]
    assert {(row.state, row.retry_count, row.solo, row.last_error) for row in rows} == {
        ("pending", 1, True, "worker_lost: WorkerLostError")
    }
    assert workshop.drain() == 2


def test_row_that_kills_its_worker_is_dead_after_five_and_its_neighbour_is_done(services: Services, workshop: Workshop, sql: Sql) -> None:
    poison, innocent = store(services, "poison", "innocent")

    def die_of_poison(texts: Sequence[str]) -> None:
        if "poison" in texts:
            raise WorkerDied

    workshop.encoder.before = die_of_poison
    deaths = 0
    while batches := workshop.claim():
        for batch in batches:
            try:
                workshop.process(batch)
            except WorkerDied:
                deaths += 1
                workshop.queue.release_crashed(batch.claim, "worker_lost: WorkerLostError")
    assert deaths == 5
    row = stored_row(sql, poison)
    assert (row.state, row.retry_count, row.last_error) == ("dead", 5, "worker_lost: WorkerLostError")
    assert row.processed_at is not None
    # One attempt in the shared batch, one alone.
    assert (stored_row(sql, innocent).state, stored_row(sql, innocent).retry_count) == ("done", 2)


def test_lease_that_expires_on_the_last_attempt_is_death(services: Services, workshop: Workshop, sql: Sql) -> None:
    (episode_id,) = store(services, "one")
    sql("UPDATE memory_system.embeddings_queue SET retry_count = 4")
    (batch,) = workshop.claim()
    crash(workshop, batch)
    sql("UPDATE memory_system.embeddings_queue SET lease_until = now() - interval '1 s'")
    workshop.queue.reap()
    assert (stored_row(sql, episode_id).state, stored_row(sql, episode_id).retry_count) == ("dead", 5)
    assert workshop.claim() == []


def test_failing_row_waits_longer_each_time_and_is_dead_after_exactly_five(
    services: Services, workshop: Workshop, database_settings: Settings, sql: Sql
) -> None:
    (episode_id,) = store(services, "one")
    workshop.encoder.before = fail
    for attempt in range(1, 6):
        (batch,) = workshop.claim()
        assert workshop.process(batch).failed == 1
        row = stored_row(sql, episode_id)
        assert (row.retry_count, row.state) == (attempt, "dead" if attempt == 5 else "pending")
        # A code and a class, never the text of an exception, which may hold what an agent remembers.
        assert row.last_error == "encoder_error: RuntimeError"
        if attempt < 5:
            wait = min(database_settings.retry_max_seconds, database_settings.retry_base_seconds * 4 ** (attempt - 1))
            assert 0.74 * wait - 1 <= row.due_in_seconds <= 1.26 * wait
            assert workshop.claim() == []
            workshop.make_due()
    assert workshop.drain(waits=True) == 0
    assert len(workshop.encoder.calls) == 5
    assert services.stats.stats(None)["embeddings_queue"]["dead"] == 1
    view = services.episodes.get("alice", episode_id)
    assert (view.embedding_state, view.embedding_attempts, view.embedding_last_error) == ("dead", 5, "encoder_error: RuntimeError")


def test_new_content_gives_a_dead_row_five_new_attempts(services: Services, workshop: Workshop, sql: Sql) -> None:
    (episode_id,) = store(services, "one")
    workshop.encoder.before = fail
    assert workshop.drain(waits=True) == 0
    assert stored_row(sql, episode_id).state == "dead"
    workshop.encoder.before = lambda _: None
    edit(services.database, "alice", episode_id, "two")
    assert stored_row(sql, episode_id).retry_count == 0
    assert workshop.drain() == 1
    assert vector_text(sql, episode_id) == "present"


def _nan(texts: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    vectors = vectors.copy()
    vectors[[n for n, text in enumerate(texts) if "poison" in text]] = np.nan
    return vectors


def _raise(texts: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    if any("poison" in text for text in texts):
        raise ValueError("bad input")
    return vectors


def _too_short(texts: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors[:, :10] if any("poison" in text for text in texts) else vectors


def _zero(texts: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors * np.array([[0.0 if "poison" in text else 1.0] for text in texts], dtype=np.float32)


@pytest.mark.parametrize("spoil", [_nan, _raise, _zero, _too_short])
def test_poison_row_costs_its_31_neighbours_nothing(
    spoil: Callable[[Sequence[str], NDArray[np.float32]], NDArray[np.float32]], services: Services, workshop: Workshop, sql: Sql
) -> None:
    ids = store(services, *(f"row {n:02}" for n in range(17)), "poison", *(f"row {n:02}" for n in range(17, 31)))
    workshop.encoder.spoil = spoil
    (batch,) = workshop.claim()
    assert len(batch.claim.target_ids) == 32
    outcome = workshop.process(batch)
    assert (outcome.done, outcome.failed, outcome.lost) == (31, 1, 0)
    poison = ids[17]
    assert {(stored_row(sql, i).state, stored_row(sql, i).retry_count) for i in ids if i != poison} == {("done", 1)}
    row = stored_row(sql, poison)
    assert (row.state, row.retry_count) == ("pending", 1)
    assert row.last_error is not None
    assert row.last_error.split(":")[0] in {"encoder_error", "encoding_fault"}
    assert vector_text(sql, poison) == "none"
    assert sql.one("SELECT count(*) FROM nexus_memory.episode_chunks WHERE NOT vector_norm(embedding) BETWEEN 0.999 AND 1.001") == 0


def test_batch_too_large_for_memory_is_refunded_and_tried_row_by_row(services: Services, workshop: Workshop, sql: Sql) -> None:
    ids = store(services, "one", "two", "three")

    def exhaust(texts: Sequence[str]) -> None:
        if len(texts) > 1 or "three" in texts:
            raise MemoryError

    workshop.encoder.before = exhaust
    (batch,) = workshop.claim()
    outcome = workshop.process(batch)
    assert (outcome.done, outcome.failed, outcome.lost) == (0, 0, 3)
    for episode_id in ids:
        row = stored_row(sql, episode_id)
        assert (row.state, row.retry_count, row.solo, row.last_error) == ("pending", 0, True, "out_of_memory: MemoryError")
        assert 0 < row.due_in_seconds <= 1.0
    workshop.make_due()
    assert sum(workshop.process(batch).done for batch in workshop.claim()) == 2
    # Alone, it is to blame.
    row = stored_row(sql, ids[2])
    assert (row.state, row.retry_count, row.last_error) == ("pending", 1, "out_of_memory: MemoryError")
    workshop.drain(waits=True)
    assert stored_row(sql, ids[2]).state == "dead"


def test_vectors_go_to_the_texts_they_were_made_of(services: Services, workshop: Workshop, encoder: FakeEncoder, sql: Sql) -> None:
    contents = [" ".join(["word", str(n)] * (1 + n % 7)) for n in range(64)]
    ids = store(services, *contents)
    assert workshop.drain() == 64
    for episode_id, content in zip(ids, contents, strict=True):
        stored = np.array(sql.one("SELECT embedding::real[] FROM nexus_memory.zep_episodic_memory WHERE episode_id = %s", str(episode_id)))
        assert float(stored @ encoder.encode_queries([content])[0]) > 0.9999


def test_long_episode_has_a_vector_for_every_part(services: Services, workshop: Workshop, encoder: FakeEncoder, sql: Sql) -> None:
    content = " ".join(f"sentence number {n} about item{n}." for n in range(600))
    (episode_id,) = store(services, content)
    workshop.drain()
    spans = sql(
        "SELECT chunk_no, char_start, char_end, embedding::real[], vector_sha256 = sha256(vector_send(embedding))"
        " FROM nexus_memory.episode_chunks WHERE episode_id = %s ORDER BY chunk_no",
        str(episode_id),
    )
    assert len(spans) > 10
    assert [number for number, *_ in spans] == list(range(len(spans)))
    assert spans[0][1] == 0
    assert spans[-1][2] == len(content)
    for one, following in pairwise(spans):
        assert following[1] <= one[2], "characters between two chunks were left out"
    for _, start, end, vector, is_intact in spans:
        assert is_intact
        assert float(np.array(vector) @ encoder.encode_queries([content[start:end]])[0]) > 0.9999


def test_lease_is_renewed_while_a_slow_batch_encodes(
    services: Services, workshop: Workshop, database_settings: Settings, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    (episode_id,) = store(services, "one")
    quick = database_settings.model_copy(update={"heartbeat_seconds": 0.05, "lease_seconds": 0.4})
    monkeypatch.setattr(workshop.embedding, "_settings", quick)
    monkeypatch.setattr(workshop.queue, "_settings", quick)
    reaped: list[int] = []

    def slow(_: Sequence[str]) -> None:
        for _step in range(4):
            sql("SELECT pg_sleep(0.2)")
            reaped.append(workshop.queue.reap())

    workshop.encoder.before = slow
    (batch,) = workshop.claim()
    assert workshop.process(batch).done == 1
    assert reaped == [0] * 4
    assert stored_row(sql, episode_id).retry_count == 1


def test_no_connection_is_held_while_encoding(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, "one")
    seen: list[tuple[int, int]] = []

    def look(_: Sequence[str]) -> None:
        open_transactions = sql.one("SELECT count(*) FROM pg_stat_activity WHERE usename = 'nexus_worker' AND state LIKE 'idle in%%'")
        pool = workshop.database.engine.pool
        seen.append((open_transactions, pool.checkedout()))  # type: ignore[attr-defined]

    workshop.encoder.before = look
    assert workshop.drain() == 1
    assert seen == [(0, 0)]
