"""Searches over a large memory: latency by kind of question, what the index misses against an exact scan, memory and disk."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from app.embedding.encoder import load_encoder
from app.errors import StackError
from app.stack.programs import worker_names
from bench.client import Client, ask_at_once
from bench.figures import Figure, percentile, times
from bench.own_stack import OwnStack
from bench.texts import questions, short_texts

EPISODES = 100_000
AGENTS = 1_000
LARGE_SHARE = 0.3
"""Of all episodes, those of one agent; the others share the rest evenly."""

CLIENTS = (1, 10, 50)
FILTERS = ("tag", "session", "month")
TARGET_P99_MS = 100.0
"""With ten clients."""
TARGET_RECALL = 0.99

_LARGE = "large"
_TAGS, _SESSION_EPISODES, _DAYS = 10, 20, 360
_A_POST = 500
_SEARCHES = 1_500
_LATENCIES = len(CLIENTS) + len(FILTERS) + 1
_RECALL_QUERIES = 200
_CANDIDATES = 200
"""What a search asks of the vector arm: app/search/service.py."""
_NEVER_INDEX = 2**31 - 1
_FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)

_NEAREST = """
    SELECT episode_id::text FROM nexus_memory.search_by_vector(%s::public.vector, 1::smallint, %s, %s::jsonb, %s)
    ORDER BY cosine DESC, episode_id
"""
_RAW = """
    SELECT episode_id FROM nexus_memory.episode_chunks WHERE model_id = 1
    ORDER BY embedding::public.vector(384) OPERATOR(public.<=>) %s::public.vector LIMIT 10
"""

Report = Callable[[str], None]
Filters = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One search of one agent."""

    agent_id: str
    text: str
    filters: Filters


def measure(stack: OwnStack, texts: Path | None, report: Report) -> list[Figure]:
    """Return the figures of searches over EPISODES episodes of AGENTS agents, embedded by the stack's own workers.

    Args:
        stack: Idle and empty.
        texts: What is stored, as short_texts() reads it.
        report: Is told of each result.
    """
    stored = short_texts(texts, EPISODES)
    asked = questions(stored, _RECALL_QUERIES + _LATENCIES * _SEARCHES)
    started = time.monotonic()
    for agent_id, mine in _shares(stored):
        _store(stack, agent_id, mine)
    acknowledged = time.monotonic() - started
    stack.wait_until_searchable()
    report(f"{len(stored):,} episodes stored in {acknowledged:.0f} s, searchable after {time.monotonic() - started:.0f} s")
    stack.stop("dispatcher", "beat", *worker_names(stack.settings))
    with stack.connect().cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")
        vectors = load_encoder("", "auto", 1).encode_documents(asked[:_RECALL_QUERIES])
        figures = [*_recalls(cursor, asked[:_RECALL_QUERIES], vectors, report), *_raw(cursor, vectors, report)]
        figures += _latencies(stack, asked[_RECALL_QUERIES:], report)
        cursor.execute("SELECT pg_database_size(current_database()), pg_relation_size('nexus_memory.ix_episode_chunks_embedding_model_1')")
        size, index = cursor.fetchone() or (0, 0)
    note = f"{index / len(stored) / 1024:.1f} KiB of it the HNSW index"
    figures.append(Figure("disk per episode", size / len(stored) / 1024, "KiB", better="smaller", note=note))
    figures.append(Figure("resident memory of one API process, the largest", _largest_api(stack), "MiB", better="smaller"))
    return figures


def _shares(texts: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    large = int(len(texts) * LARGE_SHARE)
    yield _LARGE, texts[:large]
    each = (len(texts) - large) // (AGENTS - 1)
    for number in range(AGENTS - 1):
        first = large + number * each
        yield f"agent-{number}", texts[first : first + each if number < AGENTS - 2 else len(texts)]


def _store(stack: OwnStack, agent_id: str, texts: Sequence[str]) -> None:
    with Client(stack.url, stack.headers | {"X-Agent-Id": agent_id}) as client:
        for start in range(0, len(texts), _A_POST):
            items = [_episode(number, text) for number, text in enumerate(texts[start : start + _A_POST], start)]
            client.post("/memory/actions", {"items": items})


def _episode(number: int, text: str) -> dict[str, Any]:
    moment = _FIRST_DAY + timedelta(days=number * 7 % _DAYS, seconds=number)
    session = f"s{number // _SESSION_EPISODES}"
    return {"content": text, "tags": [f"tag-{number % _TAGS}"], "session_id": session, "occurred_at": moment.isoformat()}


def _filters(kind: str, chance: random.Random, held: int) -> Filters:
    if kind == "tag":
        return {"tags_any": [f"tag-{chance.randrange(_TAGS)}"]}
    if kind == "session":
        return {"session_id": f"s{chance.randrange(max(1, held // _SESSION_EPISODES))}"}
    if kind == "month":
        first = _FIRST_DAY + timedelta(days=chance.randrange(_DAYS - 30))
        return {"occurred_after": first.isoformat(), "occurred_before": (first + timedelta(days=30)).isoformat()}
    return {}


def _questions(texts: Sequence[str], kind: str, *, only_large: bool = False) -> list[Question]:
    """Return as many questions as texts: three in ten to the large agent, as its share of all episodes is, or all of them."""
    chance = random.Random(7)
    large, small = int(EPISODES * LARGE_SHARE), int(EPISODES * (1 - LARGE_SHARE)) // (AGENTS - 1)
    found = []
    for text in texts:
        is_large = only_large or chance.random() < LARGE_SHARE
        agent_id = _LARGE if is_large else f"agent-{chance.randrange(AGENTS - 1)}"
        found.append(Question(agent_id, text, _filters(kind, chance, large if is_large else small)))
    return found


def _latencies(stack: OwnStack, asked: list[str], report: Report) -> list[Figure]:
    """Return latencies of hybrid searches; every query is new to the service."""
    runs = [
        *((f"any agent, {clients} client{'s' if clients > 1 else ''}", clients, "none", False) for clients in CLIENTS),
        *((f"any agent, a {kind}, 10 clients", 10, kind, False) for kind in FILTERS),
        (f"the agent with {LARGE_SHARE:.0%}, 10 clients", 10, "none", True),
    ]
    figures: list[Figure] = []
    for name, clients, kind, only_large in runs:
        figures += _latency(stack, name, _questions(_take(asked), kind, only_large=only_large), clients)
        report(", ".join(f"{figure.name} {figure.value:.1f} ms" for figure in figures[-2:]))
    return figures


def _take(asked: list[str]) -> list[str]:
    taken = asked[-_SEARCHES:]
    del asked[-_SEARCHES:]
    if len(taken) < _SEARCHES:
        raise StackError("there are too few texts to ask with")
    return taken


def _latency(stack: OwnStack, name: str, questions: Sequence[Question], clients: int) -> list[Figure]:
    seconds = ask_at_once(stack.url, stack.headers, questions, clients, _ask)
    return times(name, seconds, (None, TARGET_P99_MS if clients == 10 else None))


def _ask(client: Client, question: Question) -> None:
    body = {"query": question.text, "limit": 10, "agent_id": question.agent_id, "filters": dict(question.filters)}
    client.post("/memory/search", body)


def _recalls(cursor: Any, asked: Sequence[str], vectors: NDArray[np.float32], report: Report) -> list[Figure]:
    """Return the share of the ten nearest of an exact scan that the vector arm finds, by filter, and for the large agent alone."""
    figures = []
    for kind in ("none", *FILTERS):
        for only_large in (False, True):
            questions = _questions(asked, kind, only_large=only_large)
            found = [_recall(cursor, question, vector) for question, vector in zip(questions, vectors, strict=True)]
            shares = [share for share in found if share is not None]
            whose = f"the agent with {LARGE_SHARE:.0%}" if only_large else "any agent"
            name = f"recall@10, {whose}, {'no filter' if kind == 'none' else 'a ' + kind}"
            note = f"{len(shares)} queries, the worst {min(shares):.2f}"
            figures.append(Figure(name, sum(shares) / len(shares), "", TARGET_RECALL, note=note))
            report(f"{name}: {figures[-1].value:.4f} ({note})")
    return figures


def _recall(cursor: Any, question: Question, vector: NDArray[np.float32]) -> float | None:
    literal, filters = _literal(vector), json.dumps(dict(question.filters))
    cursor.execute("SELECT set_config('app.current_agent_id', %s, false)", (question.agent_id,))
    cursor.execute(_NEAREST, (literal, 10, filters, _NEVER_INDEX))
    exact = {row[0] for row in cursor.fetchall()}
    cursor.execute(_NEAREST.replace("%s, %s::jsonb, %s)", "%s, %s::jsonb)"), (literal, _CANDIDATES, filters))
    found = list(dict.fromkeys(row[0] for row in cursor.fetchall()))[:10]
    return len(exact & set(found)) / len(exact) if exact else None


def _raw(cursor: Any, vectors: NDArray[np.float32], report: Report) -> list[Figure]:
    """Return what a bare query of the index takes, over all agents' rows together and without a filter."""
    cursor.execute("SET hnsw.ef_search = 200")
    seconds = []
    for vector in vectors:
        began = time.perf_counter()
        cursor.execute(_RAW, (_literal(vector),))
        cursor.fetchall()
        seconds.append(time.perf_counter() - began)
    report(f"a bare query of the index: {percentile(seconds, 0.5) * 1000:.1f} ms")
    return times("bare query of the HNSW index, one client", seconds)


def _literal(vector: NDArray[np.float32]) -> str:
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def _largest_api(stack: OwnStack) -> float:
    (pid,) = stack.pids("api")
    return float(max(process.memory_info().rss for process in psutil.Process(pid).children(recursive=True)) / 2**20)
