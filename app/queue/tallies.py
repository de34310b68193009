"""How many rows were done and how many died, ever, and how long they took: counted in the transaction that changes the rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import Connection, text

from app.observability.metrics import PROCESSING_LATENCY, TIME_TO_SEARCHABLE, Distribution
from app.queue.models import Finished, TargetKind

Cause = Literal["encoder_error", "encoding_fault", "out_of_memory", "worker_lost", "time_limit_exceeded", "lease_expired", "other"]
"""The codes that an error of the queue begins with: the label of embeddings_dead_total."""

_CAUSES: tuple[Cause, ...] = get_args(Cause)


# A row that another transaction holds is passed over, so nobody waits here and nothing can deadlock; where all are held, a new one
# begins. There are as many rows as writers were ever at it at once.
def _adding(table: str, key: str, sums: Mapping[str, str]) -> str:
    """Return the statement that adds to one row of a table of tallies, `sums` saying how by column."""
    return f"""
    WITH free AS MATERIALIZED (
        SELECT tally_id FROM memory_system.{table} WHERE {key} = :{key} ORDER BY tally_id LIMIT 1 FOR UPDATE SKIP LOCKED
    ), added AS (
        UPDATE memory_system.{table} t SET {", ".join(f"{column} = {total}" for column, total in sums.items())}
        FROM free WHERE t.tally_id = free.tally_id
    )
    INSERT INTO memory_system.{table} ({key}, {", ".join(sums)})
    SELECT :{key}, {", ".join(f":{column}" for column in sums)} WHERE NOT EXISTS (SELECT FROM free)
    """


def _elementwise(column: str) -> str:
    return f"ARRAY(SELECT a + b FROM unnest(t.{column}, CAST(:{column} AS bigint[])) WITH ORDINALITY AS u (a, b, n) ORDER BY n)"


_ADD_DONE = text(
    _adding(
        "done_tallies",
        "target_kind",
        {
            "rows": "t.rows + :rows",
            "processing_counts": _elementwise("processing_counts"),
            "processing_seconds": "t.processing_seconds + :processing_seconds",
            "searchable_counts": _elementwise("searchable_counts"),
            "searchable_seconds": "t.searchable_seconds + :searchable_seconds",
        },
    )
)
_ADD_DEAD = text(_adding("dead_tallies", "cause", {"rows": "t.rows + :rows"}))
_DONE = text("SELECT * FROM memory_system.done_tallies")
_DEAD = text("SELECT cause, sum(rows)::bigint AS rows FROM memory_system.dead_tallies GROUP BY cause")


@dataclass(frozen=True, slots=True)
class Tallies:
    """Rows done by kind of target, rows that died by cause, and how long the done ones took; every kind and cause is there."""

    done: Mapping[str, int]
    dead: Mapping[str, int]
    processing: Mapping[str, Distribution]
    searchable: Mapping[str, Distribution]


def count_done(connection: Connection, kind: TargetKind, finished: Iterable[Finished]) -> None:
    """Count rows that were done in this transaction."""
    rows = list(finished)
    if not rows:
        return
    processing = Distribution.of(PROCESSING_LATENCY.buckets, (row.processing_seconds for row in rows))
    waits = (row.searchable_seconds for row in rows if row.searchable_seconds is not None)
    searchable = Distribution.of(TIME_TO_SEARCHABLE.buckets, waits)
    connection.execute(
        _ADD_DONE,
        {
            "target_kind": kind,
            "rows": len(rows),
            "processing_counts": list(processing.counts),
            "processing_seconds": processing.total,
            "searchable_counts": list(searchable.counts),
            "searchable_seconds": searchable.total,
        },
    )


def count_dead(connection: Connection, states: Iterable[str], error: str) -> None:
    """Count those of the new states that are dead.

    Args:
        connection: In the transaction that changed the rows.
        states: The rows' new states.
        error: What they died of, as their last_error says it.
    """
    dead = sum(state == "dead" for state in states)
    if dead:
        connection.execute(_ADD_DEAD, {"cause": cause_of(error), "rows": dead})


def cause_of(error: str) -> Cause:
    """Return the code of an error, `other` for one that is not known."""
    code = error.partition(":")[0]
    return next((cause for cause in _CAUSES if cause == code), "other")


def read(connection: Connection) -> Tallies:
    """Return the sums over everything that was ever counted."""
    kinds = get_args(TargetKind)
    done = dict.fromkeys(kinds, 0)
    processing = {kind: Distribution.of(PROCESSING_LATENCY.buckets, ()) for kind in kinds}
    searchable = {kind: Distribution.of(TIME_TO_SEARCHABLE.buckets, ()) for kind in kinds}
    for row in connection.execute(_DONE):
        done[row.target_kind] += row.rows
        processing[row.target_kind] += Distribution(tuple(row.processing_counts), row.processing_seconds)
        searchable[row.target_kind] += Distribution(tuple(row.searchable_counts), row.searchable_seconds)
    dead: dict[str, int] = dict.fromkeys(_CAUSES, 0)
    for row in connection.execute(_DEAD):
        dead[cause_of(row.cause)] += row.rows
    return Tallies(done, dead, processing, searchable)
