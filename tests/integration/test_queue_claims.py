"""The queue before a worker starts: order, window, low-water mark, publishing."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy import Connection, text

from app.bootstrap import Services
from app.config import Role, Settings
from app.db import Database
from app.queue import repository
from app.queue.lanes import LowWater, Position
from app.queue.models import Batch, ClaimedRow
from app.queue.service import QueueService
from app.queue.workers import WorkerIdentity, this_process
from tests.factories.episodes import stored_row
from tests.factories.servers import TestServers
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop, claimed, store


def claim_rows(database: Database, *, window: int, after: dict[int, Position] | None = None, unread: int = 0) -> list[ClaimedRow]:
    """Claim from the start, or after the given rows, with a window of so many rows (one slot), beside unread messages."""
    with database.transaction() as connection:
        return claim_in(connection, window=window, after=after, unread=unread)


def claim_in(connection: Connection, *, window: int, after: dict[int, Position] | None = None, unread: int = 0) -> list[ClaimedRow]:
    return repository.claim(
        connection,
        uuid4(),
        after=after or {},
        oldest_claim=None,
        most=256,
        unread=unread,
        messages_per_slot=2,
        rows_per_slot=window,
        batch_rows=1,
        lease_seconds=45,
        silence_seconds=60,
    )


def by_lane(rows: Sequence[ClaimedRow]) -> dict[int, set[UUID]]:
    return {lane: {row.target_id for row in rows if row.priority == lane} for lane in {row.priority for row in rows}}


def test_window_goes_to_the_most_urgent_and_every_lane_keeps_its_reserve(
    services: Services, workshop: Workshop, worker_database: Database
) -> None:
    stored = {}
    for lane, importance in ((3, 0.1), (2, 0.5), (1, 0.75), (0, 0.95)):  # Stored in the reverse of their urgency.
        stored[lane] = [store(services, 1, importance_score=importance)[0] for _ in range(20)]
    workshop.announce(slots=1)
    # The oldest of each lane: all of the window, a quarter, an eighth, a sixteenth.
    expected = {lane: set(stored[lane][:rows]) for lane, rows in ((0, 16), (1, 4), (2, 2), (3, 1))}
    assert by_lane(claim_rows(worker_database, window=16)) == expected
    assert claim_rows(worker_database, window=16) == []


def low_moves_on(services: Services, workshop: Workshop) -> None:
    """Critical rows keep coming, more than the workers can do, and one low row waits."""
    (low,) = store(services, 1, importance_score=0.0)
    workshop.announce(slots=2)
    for _ in range(3):
        store(services, 200, importance_score=1.0)
        batches = workshop.queue.claim()
        if low in claimed(batches):
            return
        workshop.process(batches[0])
    raise AssertionError("the low row starves")


def test_low_row_moves_on_while_critical_ones_keep_coming(services: Services, workshop: Workshop) -> None:
    low_moves_on(services, workshop)


def test_mutant_without_reserves_starves_the_low_lane(services: Services, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = re.sub(r"ceil\(w\.rows \* [\d.]+\)", "0", repository._CLAIM.text)
    assert mutant != repository._CLAIM.text
    monkeypatch.setattr(repository, "_CLAIM", text(mutant))
    with pytest.raises(AssertionError, match="starves"):
        low_moves_on(services, workshop)


def test_critical_row_finds_room_in_a_full_window(services: Services, workshop: Workshop, worker_database: Database) -> None:
    store(services, 40)
    workshop.announce(slots=1)
    assert len(claim_rows(worker_database, window=16)) == 16
    urgent = store(services, 1, importance_score=1.0)
    assert [row.target_id for row in claim_rows(worker_database, window=16)] == urgent


def late_commit_is_found(services: Services, workshop: Workshop, servers: TestServers, sql: Sql) -> None:
    """A transaction that began before others commits its row after theirs were claimed: its place is behind the low-water mark."""
    with closing(servers.superuser(sql.one("SELECT current_database()"))) as early, early.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES ('alice', 'early') RETURNING episode_id")
        ((early_id,),) = cursor.fetchall()
        store(services, 5)
        dispatcher = QueueService(workshop.database, services.settings)
        workshop.announce()
        assert len(claimed(dispatcher.claim())) == 5
        cursor.execute("COMMIT")
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        if UUID(early_id) in claimed(dispatcher.claim()):
            return
    raise AssertionError("the late commit was never claimed")


def test_row_that_commits_behind_the_low_water_mark_is_claimed_within_seconds(
    services: Services, workshop: Workshop, servers: TestServers, sql: Sql
) -> None:
    late_commit_is_found(services, workshop, servers, sql)


def test_mutant_that_never_looks_from_the_start_misses_late_commits(
    services: Services, workshop: Workshop, servers: TestServers, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LowWater, "begin", lambda _: False)
    with pytest.raises(AssertionError, match="never claimed"):
        late_commit_is_found(services, workshop, servers, sql)


def test_nobody_at_work_means_no_claim(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, 3)
    assert workshop.queue.claim() == []
    workshop.queue.beat(this_process("dispatcher"))
    assert workshop.queue.claim() == []
    workshop.announce()
    sql("UPDATE memory_system.workers SET heartbeat_at = now() - interval '61 s'")
    assert workshop.queue.claim() == []
    workshop.announce()
    assert len(claimed(workshop.queue.claim())) == 3


def test_window_holds_two_batches_for_each_live_slot(services: Services, workshop: Workshop, database_settings: Settings) -> None:
    store(services, 300)
    window = 2 * database_settings.batch_rows
    workshop.announce(slots=1)
    first = workshop.queue.claim()
    assert len(claimed(first)) == window
    assert workshop.queue.claim() == []
    workshop.process(first[0])
    assert len(claimed(workshop.queue.claim())) == len(first[0].claim.target_ids)
    workshop.announce(slots=1, worker_id="worker@test:2")
    assert len(claimed(workshop.queue.claim())) == window
    workshop.queue.leave(WorkerIdentity("worker@test:2", "worker", "test", 2))
    assert workshop.queue.claim() == []
    assert workshop.queue.counts().processing == 2 * window


def trickle_becomes_a_load(services: Services, workshop: Workshop) -> None:
    """Rows come one by one until the window is full of messages of one row, and then faster than they are done."""
    workshop.announce(slots=1)
    window = 2 * services.settings.batch_rows
    in_broker: list[Batch] = []
    for _ in range(window):
        store(services, 1)
        in_broker += workshop.queue.claim()
    assert {len(batch.claim.target_ids) for batch in in_broker} == {1}
    assert len(in_broker) > window // 2
    store(services, 6 * window)
    messages = 0
    while in_broker:
        workshop.process(in_broker.pop(0))
        workshop.announce(slots=1)
        claimed_now = workshop.queue.claim()
        in_broker += claimed_now
        messages += len(claimed_now)
    assert workshop.queue.counts().done == 7 * window
    assert messages <= 18, f"{messages} messages of {6 * window / messages:.1f} rows on average"


def test_load_that_began_as_a_trickle_is_done_in_whole_messages(services: Services, workshop: Workshop) -> None:
    trickle_becomes_a_load(services, workshop)


def test_mutant_that_claims_each_row_that_becomes_free_stays_with_messages_of_one(
    services: Services, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_CLAIM", text(str(repository._CLAIM).replace("least(:batch_rows,", "least(0,")))
    with pytest.raises(AssertionError, match=r"messages of 1\.\d rows"):
        trickle_becomes_a_load(services, workshop)


def test_one_claim_takes_at_most_claim_rows(services: Services, workshop: Workshop, database_settings: Settings) -> None:
    store(services, database_settings.claim_rows + 44)
    workshop.announce(slots=100)
    assert len(claimed(workshop.queue.claim())) == database_settings.claim_rows
    assert len(claimed(workshop.queue.claim())) == 44


def two_dispatchers(services: Services, workshop: Workshop, login: Callable[[Role], Database]) -> None:
    """Two claims run while neither has committed: together they must not exceed the window, nor share a row."""
    store(services, 200)
    workshop.announce(slots=1)
    first, second = login("nexus_worker"), login("nexus_worker")
    rows: list[ClaimedRow] = []
    with first.transaction() as one, second.transaction() as two:
        for connection in (one, two):
            if repository.enter_window(connection):
                rows += claim_in(connection, window=64)
    ids = [row.target_id for row in rows]
    assert len(ids) == len(set(ids)), "two dispatchers took the same row"
    assert len(ids) == 64, "two dispatchers spent the same room"


def test_two_dispatchers_share_one_window(services: Services, workshop: Workshop, login: Callable[[Role], Database]) -> None:
    two_dispatchers(services, workshop, login)


def test_mutant_without_the_window_lock_overfills_the_window(
    services: Services, workshop: Workshop, login: Callable[[Role], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_TRY_WINDOW", text("SELECT true"))
    with pytest.raises(AssertionError, match="same room"):
        two_dispatchers(services, workshop, login)


def test_many_dispatchers_claim_each_row_once(services: Services, database_settings: Settings, login: Callable[[Role], Database]) -> None:
    ids = store(services, 600)
    queues = [QueueService(login("nexus_worker"), database_settings) for _ in range(4)]
    queues[0].beat(WorkerIdentity("w", "worker", "test", 1, 100))
    taken: list[UUID] = []
    gate = threading.Barrier(4)

    def run(queue: QueueService) -> None:
        gate.wait()
        for _ in range(40):
            taken.extend(claimed(queue.claim()))

    threads = [threading.Thread(target=run, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


def test_row_that_a_client_is_changing_is_passed_over(services: Services, workshop: Workshop, servers: TestServers, sql: Sql) -> None:
    held, free = store(services, 2)
    with closing(servers.superuser(sql.one("SELECT current_database()"))) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT 1 FROM memory_system.embeddings_queue WHERE target_id = %s FOR UPDATE", (str(held),))
        assert claimed(workshop.claim()) == [free]
    assert claimed(workshop.claim()) == [held]


@pytest.mark.parametrize(("unread", "room"), [(0, 16), (1, 13), (10, 4), (14, 0), (1000, 0)])
def test_messages_beyond_the_rows_in_flight_take_room(
    services: Services, workshop: Workshop, worker_database: Database, unread: int, room: int
) -> None:
    store(services, 40)
    workshop.announce(slots=1)
    assert len(claim_rows(worker_database, window=16, unread=unread)) == room


def test_messages_of_rows_in_flight_take_no_room_twice(services: Services, workshop: Workshop, worker_database: Database) -> None:
    store(services, 40)
    workshop.announce(slots=1)
    assert len(claim_rows(worker_database, window=10)) == 10
    assert len(claim_rows(worker_database, window=16, unread=8)) == 6


def test_giving_back_spares_rows_that_a_worker_has_started(services: Services, workshop: Workshop, sql: Sql) -> None:
    """The broker's client fails after the message went out, and the worker is quicker than the dispatcher's second thought."""
    (episode_id,) = store(services, 1)
    (batch,) = workshop.claim()

    def give_back(_: object) -> None:
        assert workshop.queue.give_back([batch.claim]) == 0

    workshop.encoder.before = give_back
    assert workshop.process(batch).done == 1
    assert stored_row(sql, episode_id).retry_count == 1


def test_states_and_claims_are_guarded_by_the_database(services: Services, sql: Sql) -> None:
    store(services, 1)
    for change in ("state = 'lost'", "claim_token = gen_random_uuid()", "state = 'processing'", "priority = 9", "target_kind = 'other'"):
        with pytest.raises(psycopg2.errors.CheckViolation):
            sql(f"UPDATE memory_system.embeddings_queue SET {change}")
