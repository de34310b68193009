"""Another memory over the same PostgreSQL and the same weights, in a process of its own environment.

Started as `PYTHON bench/rival_process.py NAME`, with a Python that has bench/rivals-requirements.txt and nothing of this project.
Lines of JSON in: first {"url", "weights", "threads"}, then jobs {"store": [...]}, {"search": [...]}. One line out for each: seconds.
"""

import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": tempfile.mkdtemp(prefix="nexus-rival-"), "HF_HUB_OFFLINE": "1"}

AGENT = "bench"
DIMENSIONS = 384
_A_BATCH = 500


class Rival(Protocol):
    """What is asked of each."""

    def store(self, texts: Sequence[str]) -> None:
        """Store texts so that they can be searched when this returns."""

    def search(self, query: str) -> list[str]:
        """Return the ten best texts."""


class Mem0:
    """mem0 without its language model (infer=False), on pgvector."""

    def __init__(self, url: str, weights: str) -> None:
        from mem0 import Memory

        store = {"connection_string": url, "embedding_model_dims": DIMENSIONS, "hnsw": True}
        self._memory: Any = Memory.from_config(
            {
                "vector_store": {"provider": "pgvector", "config": store},
                "embedder": {"provider": "huggingface", "config": {"model": weights, "embedding_dims": DIMENSIONS}},
                # Never called, but it must be named.
                "llm": {"provider": "openai", "config": {"api_key": "none"}},
                "history_db_path": f"{os.environ['MEM0_DIR']}/history.db",
            }
        )

    def store(self, texts: Sequence[str]) -> None:
        """Store one text after the other: mem0 takes no batch."""
        for text in texts:
            self._memory.add(text, user_id=AGENT, infer=False)

    def search(self, query: str) -> list[str]:
        """Return the ten best texts."""
        return [found["memory"] for found in self._memory.search(query, filters={"user_id": AGENT}, top_k=10)["results"]]


class LangGraph:
    """LangGraph's PostgresStore with an HNSW index."""

    def __init__(self, url: str, weights: str) -> None:
        from langgraph.store.postgres import PostgresStore
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(weights, device="cpu", local_files_only=True).eval()

        def embed(texts: Sequence[str]) -> list[list[float]]:
            return [vector.tolist() for vector in model.encode(list(texts), show_progress_bar=False)]

        self._opened = PostgresStore.from_conn_string(
            url, index={"dims": DIMENSIONS, "embed": embed, "fields": ["text"], "ann_index_config": {"kind": "hnsw"}}
        )
        self._store: Any = self._opened.__enter__()
        self._store.setup()

    def store(self, texts: Sequence[str]) -> None:
        """Store in batches, which is the fastest way that it has."""
        from langgraph.store.base import PutOp

        for start in range(0, len(texts), _A_BATCH):
            self._store.batch([PutOp((AGENT,), uuid.uuid4().hex, {"text": text}) for text in texts[start : start + _A_BATCH]])

    def search(self, query: str) -> list[str]:
        """Return the ten best texts."""
        return [item.value["text"] for item in self._store.search((AGENT,), query=query, limit=10)]


RIVALS: dict[str, Callable[[str, str], Rival]] = {"mem0": Mem0, "langgraph": LangGraph}


def main() -> int:
    """Serve jobs until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What the libraries print is no answer.
    import torch

    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    rival = RIVALS[sys.argv[1]](setup["url"], setup["weights"])
    rival.search("warm up")
    print(json.dumps([]), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(_run(rival, job)), file=answers, flush=True)
    return 0


def _run(rival: Rival, job: dict[str, Any]) -> list[float]:
    seconds = []
    for piece in [job["store"]] if "store" in job else job["search"]:
        began = time.perf_counter()
        if "store" in job:
            rival.store(piece)
        elif not rival.search(piece):
            raise RuntimeError("nothing was found")
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
