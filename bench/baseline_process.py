"""One process of the drain's baselines: encodes, and when asked writes, what it is told to over stdin, and answers on stdout.

Started as `python -m bench.baseline_process`. Lines of JSON in: first the set-up, then one job a line. Lines out: one a job.
"""

import json
import sys
import uuid
from collections.abc import Sequence
from typing import Any

import orjson
import psycopg2

from app.embedding.weights import find_weights, go_offline

BATCH_TEXTS = 32

# Everything that the end state of an embedded episode has, written at once: the same tables, columns and indexes as the service's,
# in one statement and one transaction a batch.
_WRITE = """
    WITH model AS (
        SELECT model_id, version FROM memory_system.embedding_models WHERE is_active
    ), episodes AS (
        INSERT INTO nexus_memory.zep_episodic_memory (episode_id, agent_id, content, embedding, embedding_version, embedding_sha256)
        SELECT t.id, 'baseline', t.content, t.vector::public.vector, m.version, nexus_memory.encoder_input_sha256(NULL, t.content)
        FROM unnest(%(ids)s::uuid[], %(texts)s::text[], %(vectors)s::text[]) AS t (id, content, vector), model m
        RETURNING episode_id, seq, agent_id, version, content, content_sha256, receipt_nonce, input_sha256, embedding
    ), chunks AS (
        INSERT INTO nexus_memory.episode_chunks
            (episode_id, model_id, chunk_no, agent_id, char_start, char_end, input_sha256, embedding, vector_sha256)
        SELECT e.episode_id, m.model_id, 0, e.agent_id, 0, char_length(e.content), e.input_sha256, e.embedding,
               sha256(public.vector_send(e.embedding))
        FROM episodes e, model m
    ), queue AS (
        INSERT INTO memory_system.embeddings_queue
            (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, state, retry_count, processed_at)
        SELECT 'episodic', e.episode_id, m.model_id, e.agent_id, e.input_sha256, char_length(e.content), 'done', 1, now()
        FROM episodes e, model m
    )
    INSERT INTO memory_system.ledger (episode_id, seq, agent_id, version, event, leaf, content_sha256, nonce)
    SELECT e.episode_id, e.seq, e.agent_id, e.version, 'accepted',
           memory_system.ledger_leaf(e.receipt_nonce, e.episode_id, e.version, e.content_sha256), e.content_sha256, e.receipt_nonce
    FROM episodes e
"""


def _load(threads: int, precision: str) -> Any:
    go_offline()
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(find_weights("").folder), device="cpu", local_files_only=True).eval()
    if precision == "bf16":
        model.bfloat16()
    model.encode(["warm", "up"] * BATCH_TEXTS, show_progress_bar=False)
    return model


def _encode_and_write(model: Any, url: str, texts: Sequence[str]) -> None:
    connection = psycopg2.connect(url)
    try:
        for start in range(0, len(texts), BATCH_TEXTS):
            batch = list(texts[start : start + BATCH_TEXTS])
            vectors = model.encode(batch, batch_size=BATCH_TEXTS, show_progress_bar=False)
            literals = [orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode() for vector in vectors]
            with connection, connection.cursor() as cursor:
                cursor.execute(_WRITE, {"ids": [str(uuid.uuid4()) for _ in batch], "texts": batch, "vectors": literals})
    finally:
        connection.close()


def main() -> int:
    """Serve jobs until stdin ends."""
    setup = json.loads(sys.stdin.readline())
    model = _load(setup["threads"], setup["precision"])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if job["write"]:
            _encode_and_write(model, setup["url"], job["texts"])
        else:
            model.encode(job["texts"], batch_size=BATCH_TEXTS, show_progress_bar=False)
        print(json.dumps({"done": len(job["texts"])}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
