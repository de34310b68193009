"""Content that breaks its encoder, changes under way, is written in bulk, or is never seen by a trigger; an encoder that breaks for all."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import StringIO
from uuid import UUID

import pytest

from tests.factories import history
from tests.factories.processes import wait_until
from tests.factories.statements import TRIGGERS_OFF, copy_in
from tests.faults.case import Case
from tests.faults.switches import poison

_FELL_SILENT = "lease_expired: the worker fell silent"
_ERRORS = {
    "raise": "encoder_error: SabotageError",
    "memory": "out_of_memory: MemoryError",
    "kill": "worker_lost: WorkerLostError",
    "hang": "time_limit_exceeded: WorkerLostError",
    "nan": "encoding_fault: not a finite vector with a direction",
    "dimension": "encoding_fault: wrong dimensions",
}


def _poisoned(case: Case, kind: str, among: int) -> None:
    """One poison among many: the others done, the poison dead after exactly five attempts, replayed once the cause is gone."""
    case.write(among // 2)
    (bad,) = case.write(1, marks=poison(kind))
    case.write(among - among // 2 - 1)
    with case.fault():
        case.wait_done(among - 1)
    case.drain()
    [(state, attempts, error)] = case.sql(
        "SELECT state, retry_count, last_error FROM memory_system.embeddings_queue WHERE target_id = %s", str(bad)
    )
    assert (state, attempts) == ("dead", 5)
    # A crash takes its batch along, and each of the innocent pays one attempt once; every other kind of poison costs them nothing.
    crashes = kind in {"kill", "hang"}
    # The short form's lease of seconds can end before a busy machine has told the worker's parent that its child is gone.
    lease_may_win = crashes and case.world.profile.name != "full"
    assert error == _ERRORS[kind] or (lease_may_win and error == _FELL_SILENT), error
    others = dict(
        case.sql(
            "SELECT retry_count, count(*) FROM memory_system.embeddings_queue WHERE agent_id = %s AND state = 'done' GROUP BY 1", case.agent
        )
    )
    assert set(others) <= ({1, 2} if crashes else {1}), others
    assert others.get(2, 0) < case.world.settings.batch_rows, others
    case.world.switches.set("cured")
    assert case.sql.one("SELECT memory_system.replay_dead(NULL, NULL, now(), 1000)") == 1
    case.settle(most_attempts=2 if crashes else 1)


@pytest.mark.short
def test_one_poison_that_kills_its_worker_among_two_hundred(case: Case) -> None:
    _poisoned(case, "kill", 200)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.real_model) if kind in {"nan", "dimension"} else kind for kind in _ERRORS]
)
def test_one_poison_among_a_thousand(case: Case, kind: str) -> None:
    _poisoned(case, kind, 1000)


def test_long_text_outlasts_the_lease_and_the_limit_of_a_batch(case: Case) -> None:
    """Its lease is renewed, nobody takes it away, and the time limit, which is for a hung encoder, grants many chunks more."""
    settings = case.world.settings
    case.world.switches.set("delay", str(max(settings.lease_seconds, settings.task_time_limit_seconds) + 2))
    case.write(1, contents=["a long story " * 3_000])
    case.wait_in_flight(1)
    with case.fault():
        case.wait_done(1)
        case.world.switches.clear("delay")
    case.settle()


def test_odd_texts_are_embedded(case: Case) -> None:
    odd = [
        "x" * 20_000,
        "a " * 5_000,
        "\u200b.",
        "\U0001f600" * 300,
        "\u0301" * 500 + "a",
        "�",
        "\r\n\t .",
        "مرحبا " * 200,
        '{"a": "\\u0000"}',
        "'; DROP TABLE x; --",
    ]
    with case.fault():
        case.write(0, contents=odd)
    case.settle()


def test_model_that_fails_for_everything_charges_nobody(case: Case) -> None:
    case.write(100)
    case.wait_done(32)
    case.world.switches.set("model_down")
    case.write(300)
    problem = "SELECT count(*) FROM memory_system.workers WHERE problem IS NOT NULL AND heartbeat_at > now() - interval '60 seconds'"
    wait_until(lambda: case.sql.one(problem) > 0, 60, "no worker tells of a problem")
    time.sleep(10)  # How long it lasts is what is being tried.
    assert case.sql.one("SELECT max(retry_count) FROM memory_system.embeddings_queue WHERE agent_id = %s", case.agent) <= 1
    assert case.states().get("dead", 0) == 0
    with case.fault():
        case.world.switches.clear("model_down")
    case.settle()
    wait_until(lambda: case.sql.one(problem) == 0, 60, "a worker still tells of a problem")


@pytest.mark.short
@pytest.mark.parametrize("change", ["update", "delete"])
def test_episodes_changed_at_every_point(case: Case, change: str) -> None:
    """Queued, claimed and in the broker, being encoded, and done: a part of the rows is changed at each."""
    case.world.switches.set("delay", "0.4")
    case.write(1000)
    case.wait_in_flight(64)
    with case.fault():
        rows = case.sql(
            "SELECT target_id, state, started_at IS NOT NULL FROM memory_system.embeddings_queue WHERE agent_id = %s", case.agent
        )
        points: dict[str, list[UUID]] = {"queued": [], "in the broker": [], "encoding": [], "done": []}
        for target_id, state, started in rows:
            where = {"pending": "queued", "done": "done"}.get(state, "encoding" if started else "in the broker")
            points[where].append(UUID(str(target_id)))
        for chosen in points.values():
            for episode_id in chosen[:20]:
                case.edit(episode_id) if change == "update" else case.delete(episode_id)
        case.world.switches.clear("delay")
    assert points["queued"] and points["in the broker"] and points["encoding"], {name: len(found) for name, found in points.items()}
    case.settle()


def test_one_episode_updated_a_thousand_times(case: Case) -> None:
    (episode_id,) = case.write(1)
    with case.fault():
        for _ in range(1000):
            case.edit(episode_id)
    case.settle()
    assert case.sql.one("SELECT version FROM nexus_memory.zep_episodic_memory WHERE episode_id = %s", str(episode_id)) == 1001


@pytest.mark.parametrize(
    "assignment", ["content = content", "importance_score = 0.9, tags = ARRAY['seen']"], ids=["same content", "another column"]
)
def test_update_that_changes_no_content_makes_no_work(case: Case, assignment: str) -> None:
    case.write(200)
    case.wait_done(200)
    case.sql(history.FORGET)
    with case.fault():
        case.sql(f"UPDATE nexus_memory.zep_episodic_memory SET {assignment} WHERE agent_id = %s", case.agent)
    case.settle()
    assert case.sql.one("SELECT count(*) FROM test_mode.queue_history") == 0


def test_bulk_copy_and_upsert(case: Case) -> None:
    with closing(case.world.superuser()) as connection, connection.cursor() as cursor, case.fault():
        lines = StringIO("".join(f"{case.agent}\t{case.sentence()}\n" for _ in range(2000)))
        copy_in(connection, "COPY nexus_memory.zep_episodic_memory (agent_id, content) FROM STDIN", lines)
        cursor.execute("SELECT episode_id FROM nexus_memory.zep_episodic_memory WHERE agent_id = %s", (case.agent,))
        case.ids += [UUID(str(row[0])) for row in cursor.fetchall()]
    case.drain()
    # An upsert that rewrites a row takes the way of an update: new work for what changed, none for the rest.
    kept, changed = case.ids[:500], case.ids[500:600]
    upsert = (
        "INSERT INTO nexus_memory.zep_episodic_memory (episode_id, agent_id, content)"
        " SELECT episode_id, agent_id, content || %s FROM nexus_memory.zep_episodic_memory WHERE episode_id = ANY (%s::uuid[])"
        " ON CONFLICT (episode_id) DO UPDATE SET content = excluded.content"
    )
    case.sql(upsert, "", [str(each) for each in kept])
    assert case.drained()
    case.sql(upsert, " and more", [str(each) for each in changed])
    case.settle()


def test_million_rows_of_one_statement_hold_up_nobody(case: Case) -> None:
    """They are all accounted for, the window does not grow, and what is urgent overtakes them. Embedding them all would take hours."""
    rows = 1_000_000 if case.world.profile.name == "full" else 20_000
    bulk = f"{case.agent}-bulk"
    # The record of the queue is for rows that are worked on; a trigger a row would be most of the time here.
    case.sql("ALTER TABLE memory_system.embeddings_queue DISABLE TRIGGER record_queue_change")
    case.sql(
        "INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content, importance_score)"
        " SELECT %s, 'bulk note ' || n, 0.2 FROM generate_series(1, %s) n",
        bulk,
        rows,
    )
    case.sql("ALTER TABLE memory_system.embeddings_queue ENABLE ALWAYS TRIGGER record_queue_change")
    with case.fault():
        case.write(200, importance=0.9)
        case.wait_done(200)
    case.settle()
    [identity] = case.sql("SELECT accepted, drift FROM memory_system.accounting_identity(%s)", bulk)
    assert identity == (rows, 0)
    states = dict(case.sql("SELECT state, count(*) FROM memory_system.embeddings_queue WHERE agent_id = %s GROUP BY state", bulk))
    assert sum(states.values()) == rows
    assert states["pending"] > rows / 2
    assert states.get("processing", 0) <= 2 * case.world.settings.batch_rows * len(case.world.workers)
    case.outcome.case += f" ({rows} rows)"
    case.world.empty()


def test_rows_that_the_triggers_missed(case: Case) -> None:
    with closing(case.world.superuser()) as connection, connection.cursor() as cursor:
        cursor.execute(TRIGGERS_OFF)
        for _ in range(500):
            cursor.execute(
                "INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES (%s, %s) RETURNING episode_id",
                (case.agent, case.sentence()),
            )
            case.ids.append(UUID(str(cursor.fetchone()[0])))
        # The trigger that was off writes the acceptance too; what is tried here is the queue.
        cursor.execute(
            "INSERT INTO memory_system.ledger (episode_id, seq, agent_id, version, event, leaf, content_sha256, nonce)"
            " SELECT episode_id, seq, agent_id, version, 'accepted',"
            " memory_system.ledger_leaf(receipt_nonce, episode_id, version, content_sha256), content_sha256, receipt_nonce"
            " FROM nexus_memory.zep_episodic_memory WHERE agent_id = %s",
            (case.agent,),
        )
    assert case.states() == {}
    with case.fault():
        assert case.sql.one("SELECT memory_system.enqueue_missing(10000)") == 500
        assert case.sql.one("SELECT memory_system.enqueue_missing(10000)") == 0
    case.settle()


def test_bulk_updates_in_opposite_order_against_acks(case: Case) -> None:
    ids = case.write(300)
    case.wait_in_flight(32)
    with case.fault(), ThreadPoolExecutor(2) as both:
        orders = (ids, list(reversed(ids)))
        assert sum(both.map(lambda order: _edit_in_steps(case, order), orders)) == 2 * len(ids)
    case.settle()


def _edit_in_steps(case: Case, order: list[UUID]) -> int:
    for episode_id in order:
        case.edit(episode_id)
    return len(order)


def test_ten_thousand_dead_rows_replayed(case: Case) -> None:
    case.world.ensure(workers=0)
    case.write(10_000)
    case.sql(
        "UPDATE memory_system.embeddings_queue SET state = 'dead', retry_count = 5, last_error = 'encoder_error: SabotageError',"
        " claim_token = NULL, lease_until = NULL, started_at = NULL, processed_at = now() WHERE agent_id = %s",
        case.agent,
    )
    # The record begins with rows that are dead: no such step leads there.
    case.sql(history.FORGET)
    case.world.ensure(workers=2)
    with case.fault():
        before = case.sql.one("SELECT now()")
        while case.sql.one("SELECT memory_system.replay_dead(NULL, 'encoder_error: SabotageError', %s, 1000)", before):
            pass
        assert case.states().get("dead", 0) == 0
    case.settle()


def test_no_role_of_the_service_may_truncate(case: Case) -> None:
    """What no row trigger would see, nobody can do."""
    may = case.sql(
        "SELECT rolname, c.oid::regclass::text FROM pg_roles, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE rolname IN ('nexus_app', 'nexus_worker', 'nexus_ro') AND nspname IN ('nexus_memory', 'memory_system') AND relkind = 'r'"
        " AND has_table_privilege(rolname, c.oid, 'TRUNCATE')"
    )
    assert may == []
    case.settle()
