"""Searches over a large memory: latency by kind of question, what the index misses against an exact scan, memory and disk."""

import json
import os
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
from app.stack.programs import worker_names
from bench.client import Client, ask_at_once
from bench.figures import Figure, percentile, times
from bench.own_stack import OwnStack
from bench.texts import questions, short_texts

AGENTS = 1_000
LARGE_SHARE = 0.3
"""Of all episodes, those of one agent; the others share the rest evenly."""

CLIENTS = (1, 10, 50)
FILTERS = ("tag", "session", "month")
TARGET_RECALL = 0.99

_LARGE = "large"
_TAGS, _SESSION_EPISODES, _DAYS = 10, 20, 360
_A_POST = 500
_SEARCHES = 1_500
_LATENCIES = len(CLIENTS) + len(FILTERS) + 1
_RECALL_QUERIES = 200
_REAL, _NOISE = 20_000, 0.33
"""Real vectors that made ones are near, and how far from them, as a length."""
_A_LOAD = 10_000
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

_FILL_EPISODES = """
    INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content, tags, session_id, "timestamp", embedding_sha256)
    SELECT %s, e ->> 'content', ARRAY[e -> 'tags' ->> 0], e ->> 'session_id', (e ->> 'occurred_at')::timestamptz,
           nexus_memory.encoder_input_sha256(NULL, e ->> 'content')
    FROM json_array_elements(%s::json) WITH ORDINALITY AS j (e, position) ORDER BY j.position RETURNING seq
"""
_FILL_CHUNKS = """
    INSERT INTO nexus_memory.episode_chunks
        (episode_id, model_id, chunk_no, agent_id, char_start, char_end, input_sha256, embedding, vector_sha256)
    SELECT e.episode_id, 1, 0, e.agent_id, 0, char_length(e.content), e.input_sha256, l.vector, sha256(public.vector_send(l.vector))
    FROM unnest(%s::bigint[], %s::public.vector[]) AS l (seq, vector) JOIN nexus_memory.zep_episodic_memory e ON e.seq = l.seq
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
    """Return the figures of searches over 100,000 episodes of AGENTS agents, embedded by the stack's own workers.

    Args:
        stack: Idle and empty.
        texts: What is stored, as short_texts() reads it.
        report: Is told of each result.
    """
    stored = short_texts(texts, 100_000)
    started = time.monotonic()
    for agent_id, numbers in _shares(len(stored)):
        with Client(stack.url, stack.headers | {"X-Agent-Id": agent_id}) as client:
            for start in numbers[::_A_POST]:
                some = range(start, min(start + _A_POST, numbers.stop))
                client.post("/memory/actions", {"items": [_episode(number, stored[number]) for number in some]})
    acknowledged = time.monotonic() - started
    stack.wait_until_searchable()
    report(f"{len(stored):,} episodes stored in {acknowledged:.0f} s, searchable after {time.monotonic() - started:.0f} s")
    stack.stop("dispatcher", "beat", *worker_names(stack.settings))
    return _Contest(stack, stored, 100.0, report).measure()


def measure_million(stack: OwnStack, report: Report) -> list[Figure]:
    """Return the same figures over 1,000,000 episodes whose vectors are made: each is near that of a real text, of which there are fewer.

    Args:
        stack: Idle and empty.
        report: Is told of each result.
    """
    stack.stop("dispatcher", "beat", *worker_names(stack.settings))
    stored = short_texts(None, 1_000_000)
    started = time.monotonic()
    real = load_encoder("", "auto", os.cpu_count() or 1).encode_documents(stored[:_REAL])
    chance = np.random.default_rng(5)
    connection = stack.connect()
    with connection.cursor() as cursor:
        index = stack.value("SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_episode_chunks_embedding_model_1'")
        cursor.execute("DROP INDEX nexus_memory.ix_episode_chunks_embedding_model_1")
        cursor.execute("SET session_replication_role = replica")
        for agent_id, numbers in _shares(len(stored)):
            for start in numbers[::_A_LOAD]:
                some = range(start, min(start + _A_LOAD, numbers.stop))
                _load(connection, agent_id, [_episode(number, stored[number]) for number in some], _near(real, len(some), chance))
        report(f"{len(stored):,} episodes loaded in {time.monotonic() - started:.0f} s")
        cursor.execute("SET maintenance_work_mem = '4GB'; SET max_parallel_maintenance_workers = 2")
        started = time.monotonic()
        cursor.execute(index)
    built = Figure("building the HNSW index anew", time.monotonic() - started, "s", better="smaller")
    report(f"the index is built in {built.value:.0f} s")
    return [*_Contest(stack, stored, 200.0, report).measure(), built]


def _near(real: NDArray[np.float32], count: int, chance: np.random.Generator) -> NDArray[np.float32]:
    """Return unit vectors with a cosine of about 0.95 to real ones chosen at random."""
    noise = chance.standard_normal((count, real.shape[1])) * (_NOISE / np.sqrt(real.shape[1]))
    found = real[chance.integers(0, len(real), count)] + noise
    unit: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _load(connection: Any, agent_id: str, episodes: Sequence[Mapping[str, Any]], vectors: NDArray[np.float32]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_FILL_EPISODES, (agent_id, json.dumps(episodes)))
        seqs = [row[0] for row in cursor.fetchall()]
        cursor.execute(_FILL_CHUNKS, (seqs, list(map(_literal, vectors))))


class _Contest:
    """Asks a filled and idle stack.

    Args:
        stack: Its workers are stopped.
        stored: The texts it holds, in the order of _shares().
        target_p99_ms: With ten clients.
        report: Is told of each result.
    """

    def __init__(self, stack: OwnStack, stored: Sequence[str], target_p99_ms: float, report: Report) -> None:
        self._stack = stack
        self._episodes = len(stored)
        self._asked = questions(stored, _RECALL_QUERIES + _LATENCIES * _SEARCHES)
        self._target_p99_ms = target_p99_ms
        self._report = report

    def measure(self) -> list[Figure]:
        """Return recalls, latencies, disk and memory."""
        with self._stack.connect().cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)")
            asked = self._asked[:_RECALL_QUERIES]
            vectors = load_encoder("", "auto", 1).encode_documents(asked)
            figures = [*self._recalls(cursor, asked, vectors), *self._raw(cursor, vectors), *self._latencies()]
            cursor.execute(
                "SELECT pg_database_size(current_database()), pg_relation_size('nexus_memory.ix_episode_chunks_embedding_model_1')"
            )
            size, index = cursor.fetchone() or (0, 0)
        note = f"{index / self._episodes / 1024:.1f} KiB of it the HNSW index"
        figures.append(Figure("disk per episode", size / self._episodes / 1024, "KiB", better="smaller", note=note))
        figures.append(Figure("resident memory of one API process, the largest", _largest_api(self._stack), "MiB", better="smaller"))
        return figures

    def _questions(self, texts: Sequence[str], kind: str, *, only_large: bool = False) -> list[Question]:
        """Return as many questions as texts: three in ten to the large agent, as its share of all episodes is, or all of them."""
        chance = random.Random(7)
        held = dict(_shares(self._episodes))
        found = []
        for text in texts:
            is_large = only_large or chance.random() < LARGE_SHARE
            agent_id = _LARGE if is_large else f"agent-{chance.randrange(AGENTS - 1)}"
            found.append(Question(agent_id, text, _filters(kind, chance, held[agent_id])))
        return found

    def _latencies(self) -> list[Figure]:
        """Return latencies of hybrid searches; every query is new to the service."""
        runs = [
            *((f"any agent, {clients} client{'s' if clients > 1 else ''}", clients, "none", False) for clients in CLIENTS),
            *((f"any agent, a {kind}, 10 clients", 10, kind, False) for kind in FILTERS),
            (f"the agent with {LARGE_SHARE:.0%}, 10 clients", 10, "none", True),
        ]
        figures: list[Figure] = []
        # Each question names its agent; the header would name another.
        headers = {name: value for name, value in self._stack.headers.items() if name != "X-Agent-Id"}
        for (name, clients, kind, only_large), start in zip(runs, range(_RECALL_QUERIES, len(self._asked), _SEARCHES), strict=True):
            questions_of_run = self._questions(self._asked[start : start + _SEARCHES], kind, only_large=only_large)
            seconds = ask_at_once(self._stack.url, headers, questions_of_run, clients, _ask)
            figures += times(name, seconds, (None, self._target_p99_ms if clients == 10 else None))
            self._report(", ".join(f"{figure.name} {figure.value:.1f} ms" for figure in figures[-2:]))
        return figures

    def _recalls(self, cursor: Any, asked: Sequence[str], vectors: NDArray[np.float32]) -> list[Figure]:
        """Return the share of the ten nearest of an exact scan that the vector arm finds, by filter, and for the large agent alone."""
        figures = []
        for kind in ("none", *FILTERS):
            for only_large in (False, True):
                questions_of_run = self._questions(asked, kind, only_large=only_large)
                found = [_recall(cursor, question, vector) for question, vector in zip(questions_of_run, vectors, strict=True)]
                shares = [share for share in found if share is not None]
                whose = f"the agent with {LARGE_SHARE:.0%}" if only_large else "any agent"
                name = f"recall@10, {whose}, {'no filter' if kind == 'none' else 'a ' + kind}"
                note = f"{len(shares)} queries, the worst {min(shares):.2f}"
                figures.append(Figure(name, sum(shares) / len(shares), "", TARGET_RECALL, note=note))
                self._report(f"{name}: {figures[-1].value:.4f} ({note})")
        return figures

    def _raw(self, cursor: Any, vectors: NDArray[np.float32]) -> list[Figure]:
        """Return what a bare query of the index takes, over all agents' rows together and without a filter."""
        cursor.execute("SET hnsw.ef_search = 200")
        seconds = []
        for vector in vectors:
            began = time.perf_counter()
            cursor.execute(_RAW, (_literal(vector),))
            cursor.fetchall()
            seconds.append(time.perf_counter() - began)
        self._report(f"a bare query of the index: {percentile(seconds, 0.5) * 1000:.1f} ms")
        return times("bare query of the HNSW index, one client", seconds)


def _shares(episodes: int) -> Iterator[tuple[str, range]]:
    """Yield each agent with the numbers of its episodes."""
    large = int(episodes * LARGE_SHARE)
    yield _LARGE, range(large)
    each = (episodes - large) // (AGENTS - 1)
    for number in range(AGENTS - 1):
        first = large + number * each
        yield f"agent-{number}", range(first, first + each if number < AGENTS - 2 else episodes)


def _episode(number: int, text: str) -> dict[str, Any]:
    moment = _FIRST_DAY + timedelta(days=number * 7 % _DAYS, seconds=number)
    session = f"s{number // _SESSION_EPISODES}"
    return {"content": text, "tags": [f"tag-{number % _TAGS}"], "session_id": session, "occurred_at": moment.isoformat()}


def _filters(kind: str, chance: random.Random, held: range) -> Filters:
    """Return one of a kind that fits an agent who holds these numbers."""
    if kind == "tag":
        return {"tags_any": [f"tag-{chance.randrange(_TAGS)}"]}
    if kind == "session":
        return {"session_id": f"s{chance.choice(held) // _SESSION_EPISODES}"}
    if kind == "month":
        first = _FIRST_DAY + timedelta(days=chance.randrange(_DAYS - 30))
        return {"occurred_after": first.isoformat(), "occurred_before": (first + timedelta(days=30)).isoformat()}
    return {}


def _ask(client: Client, question: Question) -> None:
    body = {"query": question.text, "limit": 10, "agent_id": question.agent_id, "filters": dict(question.filters)}
    client.post("/memory/search", body)


def _recall(cursor: Any, question: Question, vector: NDArray[np.float32]) -> float | None:
    literal, filters = _literal(vector), json.dumps(dict(question.filters))
    cursor.execute("SELECT set_config('app.current_agent_id', %s, false)", (question.agent_id,))
    cursor.execute(_NEAREST, (literal, 10, filters, _NEVER_INDEX))
    exact = {row[0] for row in cursor.fetchall()}
    cursor.execute(_NEAREST.replace("%s, %s::jsonb, %s)", "%s, %s::jsonb)"), (literal, _CANDIDATES, filters))
    found = list(dict.fromkeys(row[0] for row in cursor.fetchall()))[:10]
    return len(exact & set(found)) / len(exact) if exact else None


def _literal(vector: NDArray[np.float32]) -> str:
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def _largest_api(stack: OwnStack) -> float:
    (pid,) = stack.pids("api")
    return float(max(process.memory_info().rss for process in psutil.Process(pid).children(recursive=True)) / 2**20)
