"""How long one claim of 256 rows takes at growing depth, with and without a snapshot that somebody holds.

Minutes lie between two depths, and a machine shared with others is slower in one minute than in the next. So each claim is set against a
plain update of 256 rows of a small table at the same moment, and it is that ratio which must not grow.
"""

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

_BASELINE = (
    "CREATE TABLE IF NOT EXISTS public.bench_baseline (id int PRIMARY KEY, moved_at timestamptz NOT NULL)",
    "CREATE INDEX IF NOT EXISTS bench_baseline_moved_at ON public.bench_baseline (moved_at)",
    "INSERT INTO public.bench_baseline SELECT n, now() FROM generate_series(1, 10000) n ON CONFLICT DO NOTHING",
)
_UPDATE_BASELINE = "UPDATE public.bench_baseline SET moved_at = clock_timestamp() WHERE id BETWEEN %s AND %s"

Report = Callable[[str], None]


def measure(stack: OwnStack, report: Report) -> list[Figure]:
    """Return p50 and p99 of a claim at each depth, its ratio to the plain update, and how the largest of those compares with the first."""
    stack.stop("dispatcher", "beat")
    ratios: dict[str, float] = {}
    figures: list[Figure] = []
    with stack.workers_stopped():
        for is_held in (False, True):
            for depth in DEPTHS:
                name = (
                    f"{depth:,} pending, {'a snapshot held over' if is_held else 'no snapshot held, after'} {_CHURN_ROWS:,} finished rows"
                )
                found = _claims(stack, depth, is_held=is_held)
                claims, updates = [claim for claim, _ in found], [update for _, update in found]
                p50, p99 = percentile(claims, 0.5), percentile(claims, 0.99)
                ratios[name] = p50 / percentile(updates, 0.5)
                report(f"{name}: p50 {p50:.2f} ms, {ratios[name]:.2f} plain updates, p99 {p99:.2f} ms")
                note = f"{ratios[name]:.2f} times a plain update of 256 rows"
                figures.append(Figure(f"{name}: p50", p50, "ms", better="smaller", note=note))
                figures.append(Figure(f"{name}: p99", p99, "ms", better="smaller"))
        stack.empty()
    first = next(iter(ratios.values()))
    worst = max(ratios.values()) / first
    figures.append(Figure("slowest p50 to the first, each in plain updates", worst, "ratio", TARGET_RATIO, "smaller"))
    return figures


def _claims(stack: OwnStack, depth: int, *, is_held: bool) -> list[tuple[float, float]]:
    """Return how long each of many claims of 256 rows took, and the plain update right before it, in milliseconds."""
    stack.empty()
    connection = stack.connect()
    settings = stack.settings.model_copy(update={"claim_rows": 256})
    database = Database(settings, "nexus_worker", "nexus bench")
    try:
        with connection.cursor() as cursor:
            cursor.execute(_FILL, (depth + _CHURN_ROWS + 256 * _CLAIMS,))
            cursor.execute("ANALYZE memory_system.embeddings_queue")
            for statement in _BASELINE:
                cursor.execute(statement)
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


def _timed(queue: QueueService, cursor: "psycopg2.extensions.cursor") -> Iterator[tuple[float, float]]:
    # Room for any number of rows: a worker with slots enough, heard from all the time.
    for number in range(_CLAIMS):
        first = number % 39 * 256
        began = time.perf_counter()
        cursor.execute(_UPDATE_BASELINE, (first + 1, first + 256))
        update = (time.perf_counter() - began) * 1000
        queue.beat(WorkerIdentity("bench", "worker", "bench", 1, 100))
        started = time.perf_counter()
        batches = queue.claim()
        yield (time.perf_counter() - started) * 1000, update
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
