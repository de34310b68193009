"""Forgetting an agent over HTTP: in every store, with proof, and nobody else."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from app.bootstrap import Services
from app.config import Settings
from app.consciousness.models import NewCheckpoint
from tests.api.conftest import Caller
from tests.api.test_transfer import fill
from tests.factories.episodes import new_episode
from tests.factories.statements import Sql


@pytest.fixture
def redis(database_settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(database_settings.cache_dsn) as client:
        yield client


def test_agent_is_forgotten_everywhere_and_others_are_not(
    alice: Caller, bob: Caller, caller: Callable[..., Caller], drain: Callable[[], int], redis: Redis, sql: Sql, services: Services
) -> None:
    for agent in (alice, bob):
        fill(agent)
        agent.get("/memory/episodic/recent")
        agent.get("/memory/working/plan")
    # Names that would catch another agent's keys if a pattern were loose.
    bob.put("/memory/working/alice", {"active_content": {"of": "bob"}})
    drain()
    kept = len(list(redis.scan_iter("nexus:*:bob*")))
    answer = caller("admin").delete("/agents/alice")
    assert answer.status_code == 200
    body = answer.get_json()
    assert body["deleted"] | {"redis_keys": 0} == {
        "episodes": 4,
        "semantic_memories": 1,
        "working_contexts": 1,
        "memory_blocks": 2,
        "checkpoints": 1,
        "projects": 1,
        "redis_keys": 0,
    }
    assert body["deleted"]["redis_keys"] >= 2
    assert set(body["remaining"].values()) == {0}
    assert list(redis.scan_iter("nexus:*:alice")) == [b"nexus:working:bob:alice"]
    assert list(redis.scan_iter("nexus:*:alice:*")) == []
    assert len(list(redis.scan_iter("nexus:*:bob*"))) == kept
    assert bob.get("/memory/working/alice").get_json()["active_content"] == {"of": "bob"}
    assert len(bob.get("/memory/episodic").get_json()["items"]) == 4
    assert sql.one("SELECT count(*) FROM memory_system.ledger WHERE agent_id = 'alice' AND content_sha256 IS NOT NULL") == 0
    identity = services.integrity.identity()
    assert (identity.drift, identity.deleted) == (0, 4)
    assert alice.get("/memory/episodic").get_json()["items"] == []
    assert alice.post("/memory/action", {"content": "again", "idempotency_key": "k-1"}).status_code == 410
    ((action, subject, details),) = sql("SELECT action, subject, details FROM memory_system.audit_log WHERE action = 'forget agent'")
    assert (action, subject, details["deleted"]["episodes"]) == ("forget agent", "alice", 4)


def test_agent_does_not_get_round_its_read_only_blocks(alice: Caller, caller: Callable[..., Caller], sql: Sql) -> None:
    alice.post("/memory/action", {"content": "x"})
    assert alice.put("/consciousness/blocks/rules", {"value": "do no harm", "read_only": True}).status_code == 201
    answer = alice.delete("/agents/alice")
    assert (answer.status_code, answer.get_json()["code"]) == (403, "permission_denied")
    assert sql("SELECT (SELECT count(*) FROM nexus_memory.zep_episodic_memory), (SELECT count(*) FROM consciousness.memory_blocks)") == [
        (1, 1)
    ]
    body = caller("admin").delete("/agents/alice").get_json()
    assert (body["deleted"]["memory_blocks"], body["remaining"]["memory_blocks"]) == (1, 0)


def test_forgetting_never_deadlocks_with_writes(alice: Caller, caller: Callable[..., Caller], services: Services, sql: Sql) -> None:
    labels = [f"block-{number}" for number in range(40)]
    stop = threading.Event()
    failed: list[Exception] = []

    def write_on(backwards: bool) -> None:
        while not stop.is_set():
            try:
                for label in reversed(labels) if backwards else labels:
                    services.consciousness.put_block("alice", label, "x", read_only=None, expected_version=None, may_unlock=True)
                services.consciousness.checkpoint("alice", NewCheckpoint("kind", {}, {}))
                services.episodes.store_many("alice", [new_episode(f"text {n}", project=f"p{n % 3}") for n in range(20)])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                failed.append(error)
                return

    def repair_on() -> None:
        ids = "ARRAY(SELECT episode_id FROM nexus_memory.zep_episodic_memory ORDER BY random() LIMIT 50)"
        while not stop.is_set():
            sql(f"SELECT memory_system.repair_vectors({ids})")

    threads = [threading.Thread(target=write_on, args=(backwards,)) for backwards in (False, True)]
    threads.append(threading.Thread(target=repair_on))
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        services.agents.forget("alice", None, may_unlock=True)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []


def test_unknown_agent_is_forgotten_without_harm(caller: Callable[..., Caller]) -> None:
    body = caller("admin").delete("/agents/nobody").get_json()
    assert set(body["deleted"].values()) == set(body["remaining"].values()) == {0}


def test_only_the_agent_itself_and_an_administrator_may(alice: Caller, bob: Caller, caller: Callable[..., Caller]) -> None:
    alice.post("/memory/action", {"content": "x"})
    assert bob.delete("/agents/alice").status_code == 403
    assert caller("readonly", "alice").delete("/agents/alice").status_code == 403
    assert caller("operator").delete("/agents/alice").status_code == 403
    assert bob.delete("/agents/bob", X_Agent_Id="alice").status_code in (403, 422)
    assert caller("admin").delete("/agents/a%20b").status_code == 422
    assert len(alice.get("/memory/episodic").get_json()["items"]) == 1
    assert caller("admin").delete("/agents/alice").get_json()["deleted"]["episodes"] == 1


def test_more_than_one_step_of_episodes_is_forgotten(alice: Caller, sql: Sql) -> None:
    sql("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) SELECT 'alice', 'n' || i FROM generate_series(1, 1203) i")
    sql(
        "INSERT INTO nexus_memory.working_memory_contexts (agent_id, context_id, active_content)"
        " SELECT 'alice', 'c' || i, '{}' FROM generate_series(1, 5001) i"
    )
    body = alice.delete("/agents/alice").get_json()
    assert (body["deleted"]["episodes"], body["deleted"]["working_contexts"]) == (1203, 5001)
    assert set(body["remaining"].values()) == {0}
    assert sql.one("SELECT count(*) FROM memory_system.ledger WHERE event = 'deleted'") == 1203


def test_redis_that_is_away_is_said_and_the_request_may_be_repeated(
    alice: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.post("/memory/action", {"content": "x"})
    monkeypatch.setattr(services.agents._cache._redis, "attempt", lambda *_: None)
    answer = alice.delete("/agents/alice")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "unavailable")
    monkeypatch.undo()
    assert alice.delete("/agents/alice").status_code == 200
