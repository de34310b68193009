"""The accounting identity: it holds at every moment and through any history, and what is changed by hand breaks it."""

import threading
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from app.bootstrap import Services
from tests.factories.episodes import delete, edit, new_episode
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql
from tests.factories.workshop import Workshop

EPISODES = "nexus_memory.zep_episodic_memory"


def test_empty_system_is_accounted_for(services: Services) -> None:
    identity = services.integrity.identity()
    assert (identity.accepted, identity.drift) == (0, 0)
    assert services.integrity.verify_range(None, 1, 10) == []


def test_hand_made_changes_show_as_drift(services: Services, workshop: Workshop, sql: Sql) -> None:
    services.episodes.store_many("alice", [new_episode(f"episode {n}") for n in range(4)])
    workshop.drain()
    assert services.integrity.identity().drift == 0
    sql(f"DELETE FROM {EPISODES} WHERE content = 'episode 0'")
    assert services.integrity.identity().drift == 1
    assert services.health.report().components["accounting_identity"]["status"] == "unhealthy"
    assert services.health.report().status == "unhealthy"
    # Neither work nor vector: in no class.
    sql("DELETE FROM memory_system.embeddings_queue; UPDATE nexus_memory.zep_episodic_memory SET embedding_sha256 = NULL")
    assert services.integrity.identity().drift == 4
    workshop.queue.enqueue_missing()
    assert services.integrity.identity().drift == 1
    sql(TRIGGERS_OFF)
    sql(f"INSERT INTO {EPISODES} (agent_id, content) VALUES ('alice', 'smuggled')")
    sql(TRIGGERS_ON)
    workshop.queue.enqueue_missing()
    assert services.integrity.identity().drift == 0  # One too few and one too many: only the range of verdicts tells.
    assert [one.verdict for one in services.integrity.verify_range(None, 1, 100) if one.verdict != "pending"] == ["missing", "altered"]


def test_identity_holds_at_every_moment_under_concurrent_work(services: Services, workshop: Workshop) -> None:
    drifts: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            drifts.append(services.integrity.identity().drift)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for round_ in range(6):
        receipts = services.episodes.store_many("alice", [new_episode(f"{round_} {n}") for n in range(20)])
        edit(services.database, "alice", receipts[0].episode_id, "edited")
        delete(services.database, "alice", receipts[1].episode_id)
        workshop.drain()
    stop.set()
    watcher.join()
    assert len(drifts) > 5
    assert set(drifts) == {0}


def test_identity_holds_through_any_history(services: Services, workshop: Workshop, sql: Sql) -> None:
    expected_fault: dict[str, bool] = {"on": False}

    def maybe_fail(_: Any) -> None:
        if expected_fault["on"]:
            raise RuntimeError

    workshop.encoder.before = maybe_fail

    class History(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.live: list[UUID] = []
            self.accepted = self.deleted = 0

        @initialize()
        def start_empty(self) -> None:
            sql(
                "TRUNCATE nexus_memory.zep_episodic_memory, nexus_memory.episode_chunks, memory_system.embeddings_queue,"
                " memory_system.ledger"
            )

        @rule(count=st.integers(1, 4), importance=st.sampled_from([0.1, 0.5, 0.95]))
        def store(self, count: int, importance: float) -> None:
            episodes = [new_episode(f"{self.accepted + n} words", importance_score=importance) for n in range(count)]
            self.live += [receipt.episode_id for receipt in services.episodes.store_many("alice", episodes)]
            self.accepted += count

        @rule(which=st.integers(0, 50))
        def edit(self, which: int) -> None:
            if self.live:
                edit(services.database, "alice", self.live[which % len(self.live)], f"edited {which}")

        @rule(which=st.integers(0, 50))
        def delete(self, which: int) -> None:
            if self.live:
                assert delete(services.database, "alice", self.live.pop(which % len(self.live)))
                self.deleted += 1

        @rule()
        def claim(self) -> None:
            workshop.claim()

        @rule()
        def drain(self) -> None:
            workshop.drain()

        @rule()
        def fail_until_dead(self) -> None:
            expected_fault["on"] = True
            workshop.drain(waits=True)
            expected_fault["on"] = False

        @rule()
        def lose_every_lease(self) -> None:
            sql("UPDATE memory_system.embeddings_queue SET lease_until = now() - interval '1 s' WHERE state = 'processing'")
            workshop.queue.reap()

        @invariant()
        def accounts_hold(self) -> None:
            identity = services.integrity.identity()
            assert identity.drift == 0
            assert (identity.accepted, identity.deleted) == (self.accepted, self.deleted)
            assert identity.searchable + identity.pending + identity.processing + identity.dead == len(self.live)
            stale = "c.input_sha256 <> e.input_sha256"
            assert sql.one(f"SELECT count(*) FROM nexus_memory.episode_chunks c JOIN {EPISODES} e USING (episode_id) WHERE {stale}") == 0
            assert sql.one("SELECT count(*) FROM memory_system.embeddings_queue WHERE retry_count > 5") == 0

    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=25, stateful_step_count=20, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
        ),
    )


def test_vanished_vectors_break_the_identity(services: Services, workshop: Workshop, sql: Sql) -> None:
    services.episodes.store_many("alice", [new_episode(f"text {n}") for n in range(5)])
    workshop.drain()
    assert services.integrity.identity().drift == 0
    sql("DELETE FROM nexus_memory.episode_chunks WHERE episode_id IN (SELECT episode_id FROM nexus_memory.episode_chunks LIMIT 2)")
    found = services.integrity.identity()
    assert (found.searchable, found.drift) == (3, 2)


def test_identity_is_counted_in_one_pass_though_statistics_know_nothing_of_the_work(
    services: Services, workshop: Workshop, sql: Sql
) -> None:
    """Statistics from before a bulk load say that no work is unfinished: a plan that believes it compares every row with every other."""
    services.episodes.store_many("alice", [new_episode(f"text {n}") for n in range(200)])
    workshop.drain()
    sql("ALTER TABLE memory_system.embeddings_queue SET (autovacuum_enabled = off)")
    sql("ANALYZE")
    sql(f"INSERT INTO {EPISODES} (agent_id, content) SELECT 'bulk', 'note ' || n FROM generate_series(1, 40000) n")
    for agent_id, accepted in (("bulk", 40_000), (None, 40_200), ("alice", 200)):
        # A pass takes tenths of a second, all pairs take minutes.
        sql("SET statement_timeout = '30s'")
        assert sql("SELECT accepted, drift FROM memory_system.accounting_identity(%s)", agent_id) == [(accepted, 0)]
