"""How long the accounting identity takes at growing size, asked over HTTP as an operator asks."""

import time
from collections.abc import Callable

import httpx

from app.stack.programs import worker_names
from bench.figures import Figure, percentile
from bench.own_stack import OwnStack

SIZES = (10_000, 1_000_000)
TARGET_SECONDS = 1.0
"""At the greatest size. It is counted at most every ten seconds in a process, so that is a tenth of two cores."""

_ROUNDS = 9
_PORTION = 50_000
_FILL = """
    INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content)
    SELECT 'agent-' || n %% 1000, 'synthetic episode ' || n || repeat(' ' || md5(n::text), 5) FROM generate_series(%s, %s) n
"""
# As workers leave it: a vector on the row, which is most of what a row weighs, and the work done.
_FINISH = (
    """
    UPDATE nexus_memory.zep_episodic_memory SET embedding_version = 'miniLM-384-chunked@v3', embedding_sha256 = input_sha256,
        embedding = array_fill(0.05::real, ARRAY[384])::public.vector WHERE embedding_sha256 IS NULL
    """,
    """
    INSERT INTO nexus_memory.episode_chunks
        (episode_id, model_id, chunk_no, agent_id, char_start, char_end, input_sha256, embedding, vector_sha256)
    SELECT e.episode_id, 1, 0, e.agent_id, 0, char_length(e.content), e.input_sha256, e.embedding, sha256(public.vector_send(e.embedding))
    FROM nexus_memory.zep_episodic_memory e
    WHERE NOT EXISTS (SELECT 1 FROM nexus_memory.episode_chunks c WHERE c.episode_id = e.episode_id)
    """,
    "UPDATE memory_system.embeddings_queue SET state = 'done', processed_at = now() WHERE state = 'pending'",
    "VACUUM (ANALYZE) nexus_memory.zep_episodic_memory, nexus_memory.episode_chunks, memory_system.embeddings_queue, memory_system.ledger",
)

Report = Callable[[str], None]


def measure(stack: OwnStack, report: Report) -> list[Figure]:
    """Return the seconds of GET /integrity at each size, in the median; every answer must have drift 0."""
    stack.stop("dispatcher", "beat", *worker_names(stack.settings))
    figures: list[Figure] = []
    held = 0
    with stack.connect().cursor() as cursor, httpx.Client(base_url=stack.url, headers=stack.headers, timeout=60) as client:
        # The identity does not read it, and equal vectors would take it hours.
        cursor.execute("DROP INDEX nexus_memory.ix_episode_chunks_embedding_model_1")
        for size in SIZES:
            for first in range(held + 1, size + 1, _PORTION):
                cursor.execute(_FILL, (first, min(size, first + _PORTION - 1)))
            for statement in _FINISH:
                cursor.execute(statement)
            held = size
            seconds = percentile([_ask(client, size) for _ in range(_ROUNDS)], 0.5)
            report(f"{size:,} episodes: {seconds:.3f} s")
            target = TARGET_SECONDS if size == SIZES[-1] else None
            figures.append(Figure(f"GET /integrity, {size:,} episodes", seconds, "s", target, "smaller"))
    return figures


def _ask(client: httpx.Client, size: int) -> float:
    started = time.perf_counter()
    answer = client.get("/integrity").raise_for_status().json()
    seconds = time.perf_counter() - started
    if (answer["accepted"], answer["searchable"], answer["drift"]) != (size, size, 0):
        raise AssertionError(f"{size} episodes are stored, and the identity is {answer}")
    return seconds
