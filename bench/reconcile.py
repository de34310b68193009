"""Reconciliation at growing size: peak memory, seconds without a difference, seconds with one row in a hundred damaged."""

import json
import os
import random
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from app.cache import keys
from app.cache.contexts import digest
from app.errors import StackError
from app.serialization import to_json
from app.stack.programs import worker_names
from app.working.models import ContextView
from bench.figures import Figure
from bench.own_stack import OwnStack

SIZES = (10_000, 1_000_000)
TARGET_RATIO = 1.2
_PAGE = 5_000
_SHARE = 100
"""One row in so many is damaged."""

_FILL_CONTEXTS = """
    INSERT INTO nexus_memory.working_memory_contexts (agent_id, context_id, active_content, ttl_seconds, expires_at)
    SELECT 'agent-' || n %% 1000, 'c' || n, jsonb_build_object('step', n, 'goal', 'synthetic'), 86400, now() + interval '1 day'
    FROM generate_series(%s, %s) n
"""
_VIEWS = """
    SELECT agent_id, context_id, seq, session_id, context_type, active_content, priority, ttl_seconds, expires_at, created_at, updated_at
    FROM nexus_memory.working_memory_contexts WHERE seq > %s ORDER BY seq LIMIT %s
"""
_HASHES = """
    UPDATE nexus_memory.working_memory_contexts w SET cache_sha1 = h.hash
    FROM unnest(%s::bigint[], %s::bytea[]) AS h (seq, hash) WHERE w.seq = h.seq
"""
_FILL_EPISODES = """
    INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content, embedding_sha256)
    SELECT 'agent-' || n %% 1000, c.content, nexus_memory.encoder_input_sha256(NULL, c.content)
    FROM generate_series(%s, %s) n CROSS JOIN LATERAL (SELECT 'synthetic episode ' || n AS content) c
"""
# Vectors that differ in one number: reconciliation reads their hashes, not them.
_FILL_CHUNKS = """
    INSERT INTO nexus_memory.episode_chunks
        (episode_id, model_id, chunk_no, agent_id, char_start, char_end, input_sha256, embedding, vector_sha256)
    SELECT e.episode_id, 1, 0, e.agent_id, 0, 1, e.input_sha256, v.vector, sha256(public.vector_send(v.vector))
    FROM nexus_memory.zep_episodic_memory e
    CROSS JOIN LATERAL (SELECT (array_fill(0.05::real, ARRAY[383]) || e.seq::real)::public.vector AS vector) v
    WHERE NOT EXISTS (SELECT 1 FROM nexus_memory.episode_chunks c WHERE c.episode_id = e.episode_id)
"""
_DAMAGED = "SELECT episode_id FROM nexus_memory.zep_episodic_memory TABLESAMPLE BERNOULLI (1)"

Report = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """One run of `reconcile run`: seconds, peak resident memory in MiB, and what it found and repaired."""

    seconds: float
    peak_mib: float
    found: dict[str, int]
    repaired: dict[str, int]


def measure(stack: OwnStack, report: Report) -> list[Figure]:
    """Return seconds and peak memory of both kinds of reconciliation at each size."""
    stack.stop("dispatcher", "beat", *worker_names(stack.settings))
    return [*_Working(stack, report).measure(), *_Vectors(stack, report).measure()]


class _Contest(ABC):
    """Fills a store, and runs the command as an operator would."""

    kind = ""

    def __init__(self, stack: OwnStack, report: Report) -> None:
        self.stack = stack
        self.report = report
        self.connection = stack.connect()
        self.chance = random.Random(1)

    def measure(self) -> list[Figure]:
        figures: list[Figure] = []
        peaks = []
        held = 0
        for size in SIZES:
            self.fill(held + 1, size)
            held = size
            self.execute("ANALYZE")
            agreed = self.run()
            if agreed.found:
                raise StackError(f"{self.kind}: the filled stores differ: {agreed.found}")
            peaks.append(agreed.peak_mib)
            name = f"{self.kind}, {size:,} rows"
            self.report(f"{name}: {agreed.seconds:.1f} s without a difference, peak {agreed.peak_mib:.0f} MiB")
            figures.append(Figure(f"{name}: without a difference", agreed.seconds, "s", better="smaller"))
        damaged = self.damage(held // _SHARE)
        repaired = self.run()
        again = self.run()
        self.report(f"{self.kind}: {damaged:,} damaged, {repaired.repaired} repaired in {repaired.seconds:.1f} s; again: {again.repaired}")
        found = sum(repaired.repaired.values())
        note = f"{damaged:,} damaged at random, {found:,} repaired, peak {repaired.peak_mib:.0f} MiB"
        return [
            *figures,
            Figure(f"{self.kind}, {held:,} rows: with 1 % damaged", repaired.seconds, "s", better="smaller", note=note),
            Figure(f"{self.kind}: repaired by a second run", sum(again.repaired.values()), "rows", 0.5, "smaller"),
            Figure(f"{self.kind}: peak memory at {SIZES[-1]:,} to {SIZES[0]:,}", peaks[-1] / peaks[0], "ratio", TARGET_RATIO, "smaller"),
        ]

    @abstractmethod
    def fill(self, first: int, last: int) -> None:
        """Add the rows from one number to another, in both stores."""

    @abstractmethod
    def damage(self, count: int) -> int:
        """Spoil about so many rows at random, and return how many."""

    def execute(self, statement: str, parameters: Any = None) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters)

    def run(self) -> Measured:
        settings = self.stack.settings
        environment = os.environ | {
            "DATA_DIR": str(settings.data_dir),
            "SECRETS_DIR": str(settings.secrets_dir),
            "PORT": str(settings.port),
        }
        command = [sys.executable, "-m", "app", "reconcile", "run", "--kind", self.kind, "--json"]
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise StackError(f"reconcile run ended with {os.waitstatus_to_exitcode(status)}")
        (answer,) = json.loads(output)
        return Measured(time.monotonic() - started, usage.ru_maxrss / 1024, answer["found"], answer["repaired"])


class _Working(_Contest):
    kind = "working"

    def __init__(self, stack: OwnStack, report: Report) -> None:
        super().__init__(stack, report)
        self.redis = Redis.from_url(stack.settings.cache_dsn)

    def fill(self, first: int, last: int) -> None:
        self.execute(_FILL_CONTEXTS, (first, last))
        after = 0 if first == 1 else first - 1
        for page in self._pages(after):
            pipeline = self.redis.pipeline(transaction=False)
            hashes = []
            for view in page:
                value = to_json(view)
                assert view.expires_at is not None
                pipeline.set(keys.working(view.agent_id, view.context_id), value, pxat=int(view.expires_at.timestamp() * 1000))
                hashes.append(digest(view.agent_id, view.context_id, value))
            pipeline.execute()
            self.execute(_HASHES, ([view.seq for view in page], hashes))

    def _pages(self, after: int) -> Iterator[list[ContextView]]:
        while True:
            with self.connection.cursor() as cursor:
                cursor.execute(_VIEWS, (after, _PAGE))
                page = [ContextView(*row) for row in cursor.fetchall()]
            if not page:
                return
            yield page
            after = page[-1].seq

    def damage(self, count: int) -> int:
        changed = []
        pipeline = self.redis.pipeline(transaction=False)
        for number in self.chance.sample(range(1, SIZES[-1] + 1), count):
            key = keys.working(f"agent-{number % 1000}", f"c{number}")
            kind = self.chance.randrange(4)
            if kind == 0:
                pipeline.delete(key)
            elif kind == 1:
                pipeline.set(key, b"stale", keepttl=True)
            elif kind == 2:
                pipeline.pexpire(key, 3_600_000)
            else:
                changed.append(f"c{number}")
        pipeline.execute()
        self.execute("UPDATE nexus_memory.working_memory_contexts SET priority = 'low' WHERE context_id = ANY (%s)", (changed,))
        return count


class _Vectors(_Contest):
    kind = "vectors"

    def fill(self, first: int, last: int) -> None:
        self.execute("SET session_replication_role = replica")
        # Building the graph takes half an hour, and reconciliation does not read it.
        self.execute("DROP INDEX IF EXISTS nexus_memory.ix_episode_chunks_embedding_model_1")
        self.execute(_FILL_EPISODES, (first, last))
        self.execute(_FILL_CHUNKS)
        self.execute("SET session_replication_role = origin")

    def damage(self, count: int) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute(_DAMAGED)
            ids = [str(row[0]) for row in cursor.fetchall()]
        third = len(ids) // 3
        self.execute("SET session_replication_role = replica")
        self.execute("DELETE FROM nexus_memory.episode_chunks WHERE episode_id = ANY (%s::uuid[])", (ids[:third],))
        stale = "UPDATE nexus_memory.episode_chunks SET input_sha256 = sha256('other') WHERE episode_id = ANY (%s::uuid[])"
        self.execute(stale, (ids[third : 2 * third],))
        torn = "UPDATE nexus_memory.zep_episodic_memory SET embedding_sha256 = NULL WHERE episode_id = ANY (%s::uuid[])"
        self.execute(torn, (ids[2 * third :],))
        self.execute("SET session_replication_role = origin")
        return len(ids)
