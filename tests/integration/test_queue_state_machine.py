"""Everybody who touches the queue, in any order: the invariants hold after each step, and at the end nothing is lost or stuck.

FUZZ_EXAMPLES=2000 in the environment explores more, at random, and looks for the shortest way to a failure.
"""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from app.bootstrap import Services
from tests.factories.episodes import delete, edit, new_episode
from tests.factories.history import install, read, violations
from tests.factories.queue_machine import machine_in
from tests.factories.queue_specification import ABSENT, Past, Step
from tests.factories.queue_world import World
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql
from tests.factories.workshop import Workshop

_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def test_queue_keeps_its_promises_whatever_happens(queue_world: World) -> None:
    run_state_machine_as_test(
        machine_in(queue_world),
        settings=settings(
            max_examples=_EXAMPLES or 40,
            stateful_step_count=60 if _EXAMPLES else 30,
            phases=[Phase.generate, Phase.shrink] if _EXAMPLES else [Phase.generate],
            derandomize=not _EXAMPLES,
            report_multiple_bugs=False,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_change_is_recorded_with_who_made_it(services: Services, workshop: Workshop, sql: Sql) -> None:
    install(sql)
    install(sql)
    episode_id = services.episodes.store("alice", new_episode("one")).episode_id
    workshop.drain()
    edit(services.database, "alice", episode_id, "two")
    sql(TRIGGERS_OFF)
    sql("UPDATE memory_system.embeddings_queue SET due_at = due_at - interval '1 s'")
    sql(TRIGGERS_ON)
    delete(services.database, "alice", episode_id)
    changes = read(sql)
    told = [(Step(change, change.old, change.new, Past(), 5).name, change.role, change.by_hand) for change in changes]
    superuser = sql.one("SELECT session_user")
    assert told == [
        ("new input", "nexus_app", False),
        ("claim", "nexus_worker", False),
        ("start", "nexus_worker", False),
        ("finish", "nexus_worker", False),
        ("new input", "nexus_app", False),
        ("wait", superuser, True),
        ("delete", "nexus_app", False),
    ]
    assert (changes[0].old, changes[-1].new) == (ABSENT, ABSENT)
    assert {change.key.target_id for change in changes} == {str(episode_id)}
    assert violations(changes) == []


@pytest.mark.parametrize(
    ("state", "change", "rule"),
    [
        ("done", "state = 'pending'", "done to pending: there is no such step"),
        ("done", "retry_count = 0", "this step leaves alone retry_count|there is no such step"),
        ("pending", "state = 'done'", "there is no such step"),
        ("processing", "lease_until = NULL, retry_count = 1", "a lease while processing, and only then"),
    ],
)
def test_change_that_the_specification_forbids_is_found_in_the_record(
    state: str, change: str, rule: str, services: Services, workshop: Workshop, sql: Sql
) -> None:
    install(sql)
    services.episodes.store("alice", new_episode("one"))
    steps: dict[str, Any] = {"pending": lambda: None, "processing": workshop.claim, "done": workshop.drain}
    steps[state]()
    assert violations(read(sql)) == []
    sql(f"UPDATE memory_system.embeddings_queue SET {change}")
    found = violations(read(sql))
    assert any(expected in sentence for sentence in found for expected in rule.split("|")), found
