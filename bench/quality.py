"""What is found, and how exactly: the demo's Spanish questions by each mode, and stored vectors beside those of fp32."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
from sentence_transformers import SentenceTransformer

from app.demo.story import load_questions, load_story
from app.embedding.weights import find_weights
from app.search.query import SearchMode
from bench.client import Client
from bench.figures import Figure
from bench.own_stack import AGENT, OwnStack

CONFORMANCE_TEXTS = 1_000
TARGET_COSINE = 0.999
_A_POST = 500
_FIRST = 5
_VECTORS = """
    SELECT e.content, c.embedding::text FROM nexus_memory.zep_episodic_memory e
    JOIN nexus_memory.episode_chunks c ON c.episode_id = e.episode_id WHERE e.agent_id = %s
"""

Report = Callable[[str], None]


def measure(stack: OwnStack, texts: Sequence[str], report: Report) -> list[Figure]:
    """Return the share of the expected episodes among the first five, by mode, and how near the stored vectors are to fp32 ones.

    Args:
        stack: Idle.
        texts: At least CONFORMANCE_TEXTS, distinct.
        report: Is told of each result.
    """
    stack.empty()
    return [*_spanish(stack, report), *_conformance(stack, texts[:CONFORMANCE_TEXTS], report)]


def _spanish(stack: OwnStack, report: Report) -> list[Figure]:
    story, questions = load_story(), load_questions()
    ids: dict[str, str] = {}
    for agent_id, episodes in story.by_agent.items():
        with _client(stack, agent_id) as client:
            stored = client.post("/memory/actions", {"items": [episode.request_item() for episode in episodes]})["items"]
            ids |= {receipt["episode_id"]: episode.id for receipt, episode in zip(stored, episodes, strict=True)}
    stack.wait_until_searchable()
    figures = []
    for mode in get_args(SearchMode):
        found = []
        for question in questions:
            with _client(stack, question.agent_id) as client:
                first = {ids[each] for each in client.search(question.query, mode, _FIRST)}
            found.append(len(first.intersection(question.expects)) / len(question.expects))
        name = f"R@{_FIRST} of {len(questions)} Spanish questions, {mode}"
        figures.append(Figure(name, sum(found) / len(found), ""))
        report(f"{name}: {figures[-1].value:.3f}")
    return figures


def _client(stack: OwnStack, agent_id: str) -> Client:
    return Client(stack.url, stack.headers | {"X-Agent-Id": agent_id})


def _conformance(stack: OwnStack, texts: Sequence[str], report: Report) -> list[Figure]:
    with _client(stack, AGENT) as client:
        for start in range(0, len(texts), _A_POST):
            client.store_many(texts[start : start + _A_POST])
    stack.wait_until_searchable()
    with stack.connect().cursor() as cursor:
        cursor.execute(_VECTORS, (AGENT,))
        ours = {content: np.fromstring(vector.strip("[]"), dtype=np.float32, sep=",") for content, vector in cursor.fetchall()}
    model: Any = SentenceTransformer(str(find_weights("").folder), device="cpu", local_files_only=True).eval()
    theirs = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    cosines = [float(ours[text] @ vector) for text, vector in zip(texts, theirs, strict=True)]
    note = f"{len(cosines):,} texts, the least {min(cosines):.5f}; workers encode in {stack.precision()}"
    report(f"cosine with fp32 encode(): mean {sum(cosines) / len(cosines):.5f}, {note}")
    return [Figure("cosine of stored vectors with fp32 encode(), mean", sum(cosines) / len(cosines), "", TARGET_COSINE, note=note)]
