"""Changes and deletions against workers and against each other: nothing waits for ever, nothing stale stays."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from app.bootstrap import Services
from app.episodes.models import Receipt
from app.errors import Conflict, Gone, NotFound
from tests.factories.episodes import new_episode, vector_text
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


def test_a_thousand_changes_against_finishing_workers_never_deadlock(services: Services, workshop: Workshop, sql: Sql) -> None:
    receipts = services.episodes.store_many("alice", [new_episode(f"text {number}") for number in range(40)])
    ids = [receipt.episode_id for receipt in receipts]
    workshop.announce(slots=40)
    chance = random.Random(7)

    def change(number: int) -> Receipt:
        return services.episodes.change("alice", chance.choice(ids), {"content": f"changed {number}"})

    with ThreadPoolExecutor(4) as pool:
        changes = [pool.submit(change, number) for number in range(1000)]
        while not all(future.done() for future in changes):
            workshop.make_due()
            for batch in workshop.claim():
                workshop.process(batch)
        changed = sum(future.result().version > 1 for future in changes)
    assert changed == 1000
    workshop.drain(waits=True)
    assert {vector_text(sql, episode_id) for episode_id in ids} == {"present"}
    assert services.integrity.identity().drift == 0
    assert sql.one("SELECT count(*) FROM memory_system.ledger WHERE event = 'edited'") == 1000
    verdicts = services.integrity.verify_range("alice", receipts[0].seq, receipts[-1].seq)
    assert {verdict.verdict for verdict in verdicts} == {"searchable"}


def test_only_one_of_many_changes_with_the_same_expected_version_wins(services: Services) -> None:
    episode_id = services.episodes.store("alice", new_episode()).episode_id

    def change(number: int) -> bool:
        try:
            services.episodes.change("alice", episode_id, {"content": f"by {number}"}, expected_version=1)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(change, range(40))) == 1
    assert services.episodes.get("alice", episode_id).version == 2


def test_only_one_of_many_deletions_gets_the_tombstone(services: Services, sql: Sql) -> None:
    episode_id = services.episodes.store("alice", new_episode()).episode_id

    def delete(_: int) -> bool:
        try:
            services.episodes.delete("alice", episode_id)
        except Gone:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(delete, range(40))) == 1
    assert sql.one("SELECT count(*) FROM memory_system.ledger WHERE event = 'deleted'") == 1
    assert services.integrity.identity().drift == 0


def test_deletion_while_a_worker_encodes_leaves_no_vector(services: Services, workshop: Workshop, sql: Sql) -> None:
    episode_id = services.episodes.store("alice", new_episode()).episode_id
    workshop.announce()
    (batch,) = workshop.claim()
    services.episodes.delete("alice", episode_id)
    assert workshop.process(batch).done == 0
    assert sql.one("SELECT count(*) FROM nexus_memory.episode_chunks") == 0
    assert services.integrity.identity().drift == 0


def test_change_behind_the_services_back_is_named(services: Services, drain: Callable[[], int], sql: Sql) -> None:
    receipt = services.episodes.store("alice", new_episode("as it was"))
    drain()
    sql("UPDATE nexus_memory.zep_episodic_memory SET content = 'as it is not' WHERE episode_id = %s", str(receipt.episode_id))
    (verdict,) = services.integrity.verify_range("alice", receipt.seq, receipt.seq)
    assert verdict.verdict == "altered"


def test_unknown_episode_is_not_found(services: Services) -> None:
    with pytest.raises(NotFound):
        services.episodes.change("alice", UUID(int=1), {"tags": []})
    with pytest.raises(NotFound):
        services.episodes.delete("alice", UUID(int=1))
    with pytest.raises(NotFound):
        services.episodes.context("alice", UUID(int=1), 1, 1)


def test_change_of_something_else_does_not_make_an_altered_content_right(services: Services, drain: Callable[[], int], sql: Sql) -> None:
    receipt = services.episodes.store("alice", new_episode("as it was accepted"))
    drain()
    sql("UPDATE nexus_memory.zep_episodic_memory SET content = 'forged by hand' WHERE episode_id = %s", str(receipt.episode_id))
    changed = services.episodes.change("alice", receipt.episode_id, {"importance_score": 0.9})
    (found,) = services.integrity.verify_range("alice", receipt.seq, receipt.seq)
    assert (found.verdict, changed.version) == ("altered", 2)
    again = services.episodes.change("alice", receipt.episode_id, {"content": "forged by hand"})
    (found,) = services.integrity.verify_range("alice", receipt.seq, receipt.seq)
    assert (found.verdict, again.version) == ("altered", 2), "the same content is no edit"
    services.episodes.change("alice", receipt.episode_id, {"content": "written by its owner"})
    drain()
    (found,) = services.integrity.verify_range("alice", receipt.seq, receipt.seq)
    assert found.verdict == "searchable"
