"""Records every change of the queue's rows in a test's database, and checks the record against the queue's specification."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from tests.factories.queue_specification import ABSENT, COLUMNS, Change, Key, Past, Row, Step, broken_rules
from tests.factories.statements import Sql

# ENABLE ALWAYS: changes made with triggers off are recorded too. The function is the superuser's, so every role can fire it;
# `session_user`, because inside a definer's function the current user is its owner. The changes of one row are numbered in
# their order, because whoever changes it holds its lock.
_INSTALL = """
CREATE SCHEMA test_mode;
CREATE TYPE test_mode.queue_row AS (generation bigint, input_sha256 bytea, state text, token text, started boolean, retry_count smallint,
    solo boolean, lease_until timestamptz, due_at timestamptz, last_error text);
CREATE TABLE test_mode.queue_history (
    history_seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target_kind text NOT NULL, target_id uuid NOT NULL, model_id smallint NOT NULL,
    op text NOT NULL, old test_mode.queue_row, new test_mode.queue_row,
    txid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    began_at timestamptz NOT NULL DEFAULT now(), changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role text NOT NULL DEFAULT session_user
);
CREATE FUNCTION test_mode.record_queue_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO test_mode.queue_history (target_kind, target_id, model_id, op, old, new)
    VALUES (coalesce(NEW.target_kind, OLD.target_kind), coalesce(NEW.target_id, OLD.target_id), coalesce(NEW.model_id, OLD.model_id), TG_OP,
        CASE WHEN TG_OP <> 'INSERT' THEN ROW(OLD.generation, OLD.input_sha256, OLD.state, OLD.claim_token, OLD.started_at IS NOT NULL,
            OLD.retry_count, OLD.solo, OLD.lease_until, OLD.due_at, OLD.last_error)::test_mode.queue_row END,
        CASE WHEN TG_OP <> 'DELETE' THEN ROW(NEW.generation, NEW.input_sha256, NEW.state, NEW.claim_token, NEW.started_at IS NOT NULL,
            NEW.retry_count, NEW.solo, NEW.lease_until, NEW.due_at, NEW.last_error)::test_mode.queue_row END);
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION test_mode.record_queue_change() FROM PUBLIC;
CREATE TRIGGER record_queue_change AFTER INSERT OR UPDATE OR DELETE ON memory_system.embeddings_queue
    FOR EACH ROW EXECUTE FUNCTION test_mode.record_queue_change();
ALTER TABLE memory_system.embeddings_queue ENABLE ALWAYS TRIGGER record_queue_change;
"""
FORGET = "TRUNCATE test_mode.queue_history, memory_system.done_tallies, memory_system.dead_tallies"
"""Begins the record anew, and with it what the service itself counts; in the order in which a finish writes to them."""

# What a superuser did by hand is nobody's to count. One snapshot, so that a finish is seen in both places or in neither.
_UNTALLIED = """
    WITH moved AS (
        SELECT (new).state FROM test_mode.queue_history
        WHERE (new).state IN ('done', 'dead') AND (old).state IS DISTINCT FROM (new).state
          AND role NOT IN (SELECT rolname FROM pg_roles WHERE rolsuper)
    )
    SELECT (SELECT count(*) FROM moved WHERE state = 'done') - (SELECT coalesce(sum(rows), 0) FROM memory_system.done_tallies),
           (SELECT count(*) FROM moved WHERE state = 'dead') - (SELECT coalesce(sum(rows), 0) FROM memory_system.dead_tallies)
"""
_READ = """
SELECT history_seq, target_kind, target_id::text, model_id, txid, began_at, changed_at, role,
       role IN (SELECT rolname FROM pg_roles WHERE rolsuper), (old).*, (new).*
FROM test_mode.queue_history ORDER BY history_seq
"""


def install(sql: Sql) -> None:
    """Record every change of the queue from now on, in test_mode.queue_history; once is enough.

    Args:
        sql: The superuser, in a database of the test's own.
    """
    if not sql.one("SELECT to_regclass('test_mode.queue_history') IS NOT NULL"):
        sql(_INSTALL)


def read(sql: Sql) -> list[Change]:
    """Return all recorded changes in order; empty when nothing has changed since `install`."""
    return [_change(*row) for row in sql(_READ)]


def untallied(sql: Sql) -> tuple[int, int]:
    """Return how many more rows were done, and how many more died, by this record than the service has counted."""
    done, dead = sql(_UNTALLIED)[0]
    return int(done), int(dead)


def _change(
    seq: int, kind: str, target_id: str, model_id: int, txid: int, began_at: datetime, at: datetime, role: str, by_hand: bool, *rows: Any
) -> Change:
    old, new = rows[: len(COLUMNS)], rows[len(COLUMNS) :]
    return Change(seq, Key(kind, target_id, model_id), _row(*old), _row(*new), txid, began_at, at, role, by_hand)


def _row(generation: int | None, input_sha256: memoryview, *rest: Any) -> Row:
    return ABSENT if generation is None else Row(generation, bytes(input_sha256), *rest)


def violations(changes: Iterable[Change], max_attempts: int = 5) -> list[str]:
    """Return every breach of the specification, in order, naming row, step and rule; empty for a queue that did nothing wrong.

    Args:
        changes: In the order of `read`. A row that is older than the record is taken as its first change shows it.
        max_attempts: The setting of the processes.
    """
    pasts: defaultdict[Key, Past] = defaultdict(Past)
    found = []
    for change in changes:
        past = pasts[change.key]
        step = Step(change, change.old, change.new, past, max_attempts)
        found += [_sentence(step, rule) for rule in broken_rules(step)]
        past.add(step.old, step.new)
    return found


def _sentence(step: Step, rule: str) -> str:
    key, change = step.change.key, step.change
    return (
        f"{key.target_kind} {key.target_id} model {key.model_id}: {step.name}: {rule}"
        f" (change {change.seq} by {change.role}: {_told(step.old)} -> {_told(step.new)})"
    )


def _told(row: Row) -> str:
    """Return a row in words; never its input."""
    marks = [row.state, f"generation {row.generation}", f"attempts {row.retry_count}"]
    marks += ["started"] * row.started + ["solo"] * row.solo + ([f"token {row.token}"] if row.token else [])
    return ", ".join(marks)
