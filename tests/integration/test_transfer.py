"""Exports and imports beside others that write: nothing is lost, and nobody is the victim of a deadlock."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from app.bootstrap import Services
from app.consciousness.identity import identity_hash
from app.errors import DatabaseUnavailable
from app.transfer import importer, repository
from tests.factories.statements import Sql

STORES = {"semantic": "semantic_memories", "working": "working_contexts", "block": "memory_blocks", "checkpoint": "checkpoints"}
HEADER = {"type": "header", "format": "nexus-cerebro-export", "version": 1}


def test_blocks_that_come_and_go_while_an_export_is_read_cost_no_other_block(services: Services, sql: Sql) -> None:
    sql(
        "INSERT INTO consciousness.memory_blocks (agent_id, label, value)"
        " SELECT 'alice', 'm' || to_char(n, 'FM0000'), 'x' FROM generate_series(0, 599) n"
    )
    lines = services.exports.lines("alice")
    read = [orjson.loads(line) for page in (next(lines), next(lines)) for line in page.splitlines()]
    # Before what has been read, so that every place after it shifts: first back, then on.
    sql("DELETE FROM consciousness.memory_blocks WHERE label BETWEEN 'm0000' AND 'm0049'")
    read += [orjson.loads(line) for line in next(lines).splitlines()]
    sql(
        "INSERT INTO consciousness.memory_blocks (agent_id, label, value)"
        " SELECT 'alice', 'a' || to_char(n, 'FM0000'), 'x' FROM generate_series(0, 149) n"
    )
    read += [orjson.loads(line) for page in lines for line in page.splitlines()]
    labels = [line["label"] for line in read if line["type"] == "block"]
    assert labels == [f"m{n:04}" for n in range(600)]
    assert read[-1]["counts"]["block"] == 600


def make_lines(kind: str, count: int = 150) -> list[dict[str, Any]]:
    """Return lines of a kind, which stand in the order of their keys."""
    ids = [str(UUID(int=n)) for n in range(count)]
    made: dict[str, Callable[[int], dict[str, Any]]] = {
        "semantic": lambda n: {"memory_id": ids[n], "concept": "c", "definition": f"d{n}"},
        "working": lambda n: {
            "context_id": f"c{n:03}",
            "active_content": {"n": n},
            "ttl_seconds": 3600,
            "expires_at": datetime.now(UTC) + timedelta(minutes=50),
        },
        "block": lambda n: {"label": f"b{n:03}", "value": "v"},
        "checkpoint": lambda n: {
            "checkpoint_id": ids[n],
            "checkpoint_type": "t",
            "state_data": {},
            "identity_hash": identity_hash({}),
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        },
    }
    return [{"type": kind} | made[kind](n) for n in range(count)]


def written(lines: list[dict[str, Any]]) -> list[bytes]:
    return [orjson.dumps(line) for line in [HEADER, *lines]]


def import_in_every_order(services: Services, kind: str) -> None:
    """Four clients send the same lines at once, every other one in the opposite order."""
    lines = make_lines(kind)
    start = threading.Barrier(4)

    def send(client: int) -> int:
        start.wait()
        report = services.imports.run("alice", written(lines if client % 2 else lines[::-1]))
        assert report.failed == 0
        return report.imported[kind]

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(send, range(4))) == len(lines)


@pytest.mark.parametrize("kind", ["semantic", "working", "block", "checkpoint"])
def test_imports_of_the_same_lines_in_opposite_orders_do_not_deadlock(
    kind: str, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "_TRIES", 1)
    import_in_every_order(services, kind)
    assert services.agents.size("alice")[STORES[kind]] == 150


@pytest.mark.parametrize("kind", ["working", "checkpoint", "semantic", "block"])
def test_imports_beside_forgetting_do_not_deadlock(kind: str, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "_TRIES", 1)
    lines = make_lines(kind)
    deadline = time.monotonic() + 3
    failed: list[Exception] = []

    def repeat(act: Callable[[], object]) -> None:
        while time.monotonic() < deadline:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                failed.append(error)
                return

    acts: list[Callable[[], object]] = [
        lambda: services.imports.run("alice", written(random.sample(lines, len(lines)))),
        lambda: services.imports.run("alice", written(random.sample(lines, len(lines)))),
        lambda: services.agents.forget("alice", None, may_unlock=True),
    ]
    with ThreadPoolExecutor(len(acts)) as pool:
        list(pool.map(repeat, acts))
    assert failed == []


def test_step_that_was_the_victim_of_a_deadlock_is_stored_after_all(services: Services, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    insert_block = repository.insert_block
    met: list[str] = []

    def insert_late(connection: Any, agent_id: str, line: Any) -> Any:
        # As PostgreSQL ends one of two transactions that wait for each other.
        if line.label == "b001" and len(met) < tries:
            met.append(line.label)
            connection.exec_driver_sql("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$")
        return insert_block(connection, agent_id, line)

    monkeypatch.setattr(repository, "insert_block", insert_late)
    tries = 3
    with pytest.raises(DatabaseUnavailable):
        services.imports.run("alice", written(make_lines("block", 3)))
    assert sql.one("SELECT count(*) FROM consciousness.memory_blocks") == 0
    met.clear()
    tries = 2
    report = services.imports.run("alice", written(make_lines("block", 3)))
    assert (report.imported, report.failed, met) == ({"block": 3}, 0, ["b001"] * 2)


def test_forgetting_takes_working_memories_in_the_order_of_their_names(services: Services, sql: Sql) -> None:
    # So many that PostgreSQL reads them as they lie, unless it is told in which order.
    sql(
        "INSERT INTO nexus_memory.working_memory_contexts (agent_id, context_id, active_content)"
        " SELECT 'alice', 'c' || to_char(3000 - n, 'FM0000'), '{}' FROM generate_series(1, 3000) n"
    )
    sql("ANALYZE nexus_memory.working_memory_contexts")
    lock = "SELECT 1 FROM nexus_memory.working_memory_contexts WHERE context_id = '{}' FOR UPDATE NOWAIT"
    with ThreadPoolExecutor(1) as pool:
        with services.imports._database.transaction("alice") as connection:
            connection.exec_driver_sql(lock.format("c0000"))
            forgotten = pool.submit(services.agents.forget, "alice", None, may_unlock=True)
            deadline = time.monotonic() + 10
            while not sql.one("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            # It waits for the first and holds no later one, which this would be waiting for otherwise.
            connection.exec_driver_sql(lock.format("c2999"))
        assert forgotten.result().deleted["working_contexts"] == 3000
