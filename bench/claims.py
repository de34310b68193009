"""How long one claim of 256 rows takes at growing depth, with and without a snapshot that somebody holds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg2

from app.db import Database
from app.queue.service import QueueService
from app.queue.workers import WorkerIdentity
from bench.figures import Figure, percentile
from bench.own_stack import OwnStack

DEPTHS = (10_000, 100_000, 1_000_000)
TARGET_RATIO = 1.5
_CHURN_ROWS = 150_000
"""Rows that come and go while the snapshot is held: what their index entries cost is what is measured."""
_CLAIMS = 200
_FILL = """
    INSERT INTO memory_system.embeddings_queue (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, priority)
    SELECT 'episodic', gen_random_uuid(), 1, 'bench', '\\x00', 50, 2 FROM generate_series(1, %s)
"""
# The oldest first, as the dispatcher takes them.
_CHURN = """
    WITH picked AS (
        SELECT target_id FROM memory_system.embeddings_queue WHERE state = 'pending' ORDER BY priority, due_at, target_id LIMIT %s
    ), claimed AS (
        UPDATE memory_system.embeddings_queue q SET state = 'processing', claim_token = gen_random_uuid(), claimed_at = clock_timestamp()
        FROM picked p WHERE q.target_id = p.target_id RETURNING q.target_id
    )
    SELECT count(*) FROM claimed
"""
_FINISH = "UPDATE memory_system.embeddings_queue SET state = 'done', claim_token = NULL WHERE state = 'processing'"
_FINISH_SOME = "UPDATE memory_system.embeddings_queue SET state = 'done', claim_token = NULL WHERE target_id = ANY (%s::uuid[])"

Report = Callable[[str], None]


def measure(stack: OwnStack, report: Report) -> list[Figure]:
    """Return p50 and p99 of a claim at each depth, and how the slowest p50 compares with the first."""
    stack.stop("dispatcher", "beat")
    medians: dict[str, float] = {}
    figures: list[Figure] = []
    with stack.workers_stopped():
        for is_held in (False, True):
            for depth in DEPTHS:
                name = (
                    f"{depth:,} pending, {'a snapshot held over' if is_held else 'no snapshot held, after'} {_CHURN_ROWS:,} finished rows"
                )
                found = _claims(stack, depth, is_held=is_held)
                medians[name] = percentile(found, 0.5)
                report(f"{name}: p50 {medians[name]:.2f} ms, p99 {percentile(found, 0.99):.2f} ms")
                figures.append(Figure(f"{name}: p50", medians[name], "ms", better="smaller"))
                figures.append(Figure(f"{name}: p99", percentile(found, 0.99), "ms", better="smaller"))
        stack.empty()
    first = next(iter(medians.values()))
    worst = max(medians.values()) / first
    figures.append(Figure("slowest p50 to the first", worst, "ratio", TARGET_RATIO, "smaller"))
    return figures


def _claims(stack: OwnStack, depth: int, *, is_held: bool) -> list[float]:
    """Return how long each of many claims of 256 rows took, in milliseconds."""
    stack.empty()
    connection = stack.connect()
    settings = stack.settings.model_copy(update={"claim_rows": 256})
    database = Database(settings, "nexus_worker", "nexus bench")
    try:
        with connection.cursor() as cursor:
            cursor.execute(_FILL, (depth + _CHURN_ROWS + 256 * _CLAIMS,))
            cursor.execute("ANALYZE memory_system.embeddings_queue")
            cursor.execute("CHECKPOINT")
            with _snapshot(stack, is_held=is_held):
                _churn(cursor, _CHURN_ROWS)
                queue = QueueService(database, settings)
                return list(_timed(queue, cursor))
    finally:
        database.close()
        connection.close()


def _churn(cursor: "psycopg2.extensions.cursor", rows: int) -> None:
    for _ in range(0, rows, 5_000):
        cursor.execute(_CHURN, (5_000,))
        cursor.execute(_FINISH)


def _timed(queue: QueueService, cursor: "psycopg2.extensions.cursor") -> Iterator[float]:
    # Room for any number of rows: a worker with slots enough, heard from all the time.
    for _ in range(_CLAIMS):
        queue.beat(WorkerIdentity("bench", "worker", "bench", 1, 100))
        started = time.perf_counter()
        batches = queue.claim()
        yield (time.perf_counter() - started) * 1000
        ids = [str(target_id) for batch in batches for target_id in batch.claim.target_ids]
        if len(ids) != 256:
            raise AssertionError(f"a claim took {len(ids)} rows instead of 256")
        cursor.execute(_FINISH_SOME, (ids,))


@contextmanager
def _snapshot(stack: OwnStack, *, is_held: bool) -> Iterator[None]:
    """Hold a snapshot while the block runs, as a long report or a forgotten transaction does."""
    if not is_held:
        yield
        return
    holder = stack.connect()
    holder.autocommit = False
    holder.set_session(isolation_level="REPEATABLE READ")
    try:
        with holder.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM memory_system.embedding_models")
        yield
    finally:
        holder.close()
