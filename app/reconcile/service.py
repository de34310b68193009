"""Reconciliation: both sides compute what they hold where it lies, and only a range on which they differ is read and repaired."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection

from app.cache import keys
from app.cache.contexts import ContextCache, digest
from app.cache.digests import KEYS_A_CALL, RedisDigests
from app.db import Database
from app.errors import NexusError, Unavailable
from app.queue.models import TargetKind
from app.reconcile import repository
from app.reconcile.drift import Drift, judge
from app.reconcile.repository import Portion, Run
from app.serialization import to_json

_log = structlog.get_logger(__name__)

RANGE_SIZE = 10_000
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1

Kind = Literal["working", "vectors"]
Tell = Callable[[int, int], None]
"""Told after each range: how many ranges are done, and how many there are."""

_MEMORIES: dict[TargetKind, str] = {"episodic": "episode", "semantic": "semantic memory"}
"""What has vectors, and what it is called in a report."""

_IDS_A_STEP = 500
_MOST_NAMED = 100
_SWEPT_A_STEP = 1000


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers [first, last], and how far the walk over all of them is after these: `done` of about `of` ranges."""

    first: int
    last: int
    done: int
    of: int


@dataclass(slots=True)
class Report:
    """What a run compared, found and repaired, by kind of drift. Memory is bounded by one range however large the store is."""

    kind: Kind
    dry_run: bool
    ranges_compared: int = 0
    ranges_different: int = 0
    found: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    named: list[tuple[str, str]] = field(default_factory=list)
    """The first hundred of each kind of what was found: the kind, and which key or memory."""
    error: str | None = None

    def find(self, drift: Mapping[str, str]) -> None:
        """Count what was found, by name."""
        for name, kind in drift.items():
            self.found[kind] += 1
            if self.found[kind] <= _MOST_NAMED:
                self.named.append((str(kind), name))


class ReconciliationService:
    """Compares PostgreSQL with Redis, and memories with their vectors.

    Args:
        database: Logged in as nexus_worker.
        redis: A client of the user that may run scripts.
        cache: Writes values, guarded against writers that come in between.
    """

    def __init__(self, database: Database, redis: Redis, cache: ContextCache) -> None:
        self._database = database
        self._redis = redis
        self._digests = RedisDigests(redis)
        self._cache = cache

    def run(self, kind: Kind, *, dry_run: bool = False, deep: bool = False, tell: Tell = lambda _done, _of: None) -> Report:
        """Compare everything of a kind, repair what differs, record the run, and return what it found. Several at once do no harm.

        Args:
            kind: working compares PostgreSQL with Redis; vectors compares episodes and semantic memories with their vectors and their work.
            dry_run: Find, and repair nothing.
            deep: Read every vector and every working memory too, to find those that were altered without a trigger's knowing.
            tell: Told how far it is.

        Raises:
            Unavailable: A store went away; the record says how far it came, and the next run goes on.
        """
        report = Report(kind, dry_run)
        with self._database.transaction() as connection:
            run_id = repository.begin_run(connection, kind, dry_run=dry_run)
        try:
            if kind == "working":
                self._reconcile_working(report, tell, deep=deep)
            else:
                self._reconcile_vectors(report, tell, deep=deep)
        except RedisError as error:
            report.error = f"redis: {type(error).__name__}"
            raise Unavailable(f"Redis went away ({type(error).__name__}); run it again when it is back") from error
        except NexusError as error:
            report.error = error.code
            raise
        finally:
            with self._database.transaction() as connection:
                values = {
                    "ranges_compared": report.ranges_compared,
                    "ranges_different": report.ranges_different,
                    "found": _plain(report.found),
                    "repaired": _plain(report.repaired),
                    "error": report.error,
                }
                repository.end_run(connection, run_id, values)
        if report.found:
            _log.warning(
                "drift_found",
                kind=kind,
                found=_plain(report.found),
                repaired=_plain(report.repaired),
                action="repaired by itself; if it comes back, look for what writes behind the service's back",
            )
        return report

    def runs(self, most: int) -> list[Run]:
        """Return the latest runs, the latest first."""
        with self._database.transaction() as connection:
            return repository.runs(connection, most)

    def _reconcile_working(self, report: Report, tell: Tell, *, deep: bool) -> None:
        if not report.dry_run:
            self._sweep(report)
        for step in self._ranges(repository.context_bounds):
            self._compare_working(report, step, deep=deep)
            tell(step.done, step.of)
        self._find_orphans(report)

    def _ranges(self, bounds: Callable[[Connection, int], tuple[int, int] | None]) -> Iterator[Range]:
        """Yield ranges that hold every row there is; numbers that no row has cost nothing, however many they are."""
        start, lowest = _LOWEST, None
        while True:
            with self._database.transaction() as connection:
                found = bounds(connection, start)
            if found is None:
                return
            first, last = found
            lowest = first if lowest is None else lowest
            end = min(first + RANGE_SIZE - 1, _HIGHEST)
            yield Range(first, end, (min(end, last) - lowest) // RANGE_SIZE + 1, (last - lowest) // RANGE_SIZE + 1)
            if end >= last:
                return
            start = end + 1

    def _sweep(self, report: Report) -> None:
        """Delete contexts whose time is over; Redis forgot them by itself."""
        while True:
            with self._database.transaction() as connection:
                swept = repository.sweep(connection, _SWEPT_A_STEP)
            report.repaired.update({"expired": swept} if swept else {})
            if swept < _SWEPT_A_STEP:
                return

    def _compare_working(self, report: Report, step: Range, *, deep: bool) -> None:
        with self._database.transaction() as connection:
            portions = repository.context_digests(connection, step.first, step.last, KEYS_A_CALL)
        report.ranges_compared += 1
        suspect = [portion for portion in portions if deep or not self._agrees(portion)]
        found = [self._repair_portion(report, portion, deep=deep) for portion in suspect]
        report.ranges_different += any(found)

    def _agrees(self, portion: Portion) -> bool:
        held = self._digests.digest(portion.contexts, portion.expires_ms)
        size = len(portion.contexts)
        return portion.hashed == size == held.count and portion.xor == held.xor and not held.wrong_ttl_count

    def _repair_portion(self, report: Report, portion: Portion, *, deep: bool) -> bool:
        """Repair what differs in a portion, and return whether anything did."""
        suspects = self._drift(portion.contexts, deep=deep)
        # One may have been written between the question to PostgreSQL and that to Redis: only what is still so is drift.
        again = self._drift(list(suspects), deep=deep) if suspects else {}
        drift = {context: kind for context, kind in suspects.items() if again.get(context) is kind}
        report.find({keys.working(*context): kind for context, kind in drift.items()})
        if drift and not report.dry_run:
            report.repaired.update(drift[context] for context in self._rewrite(list(drift)))
        return bool(drift)

    def _drift(self, contexts: list[tuple[str, str]], *, deep: bool) -> dict[tuple[str, str], Drift]:
        """Return what is wrong with each of at most 1,000 contexts; those that are well, gone, or about to end are absent."""
        with self._database.transaction() as connection:
            rows = repository.expected(connection, contexts)
            views = repository.views(connection, list(rows)) if deep else []
        # A row's own hash would not know of a change that was made with triggers off.
        computed = {(view.agent_id, view.context_id): digest(view.agent_id, view.context_id, to_json(view)) for view in views}
        asked = [context for context in contexts if context in rows]
        if not asked:
            return {}
        held = dict(zip(asked, self._digests.details(asked), strict=True))
        now = datetime.now(UTC)
        drift = {
            context: judge(replace(rows[context], sha1=computed.get(context, rows[context].sha1)), held[context], now) for context in asked
        }
        drift |= {
            context: Drift.UNHASHED for context, sha1 in computed.items() if drift.get(context) is None and rows[context].sha1 != sha1
        }
        return {context: kind for context, kind in drift.items() if kind is not None}

    def _rewrite(self, contexts: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Write contexts to Redis as PostgreSQL has them, and return those written; of others somebody's later word counts."""
        generations = {agent_id: self._cache.generation(agent_id) for agent_id in {agent_id for agent_id, _ in contexts}}
        with self._database.transaction() as connection:
            views = repository.views(connection, contexts)
            values = [(view, to_json(view)) for view in views]
            repository.set_hashes(connection, [(view, digest(view.agent_id, view.context_id, value)) for view, value in values])
        return [
            (view.agent_id, view.context_id)
            for view, value in values
            if (generation := generations[view.agent_id]) is not None
            and view.expires_at is not None
            and self._cache.refill(view.agent_id, view.context_id, value, view.expires_at, generation)
        ]

    def _find_orphans(self, report: Report) -> None:
        for found in self._digests.scan():
            contexts = [context for context in map(keys.parse_working, found) if context is not None]
            # Redis is asked first: a row is there before its key is.
            with self._database.transaction() as connection:
                known = repository.known(connection, contexts)
            orphans = self._still_held([key for key in found if keys.parse_working(key) not in known])
            report.find({key.decode("utf-8", "backslashreplace"): Drift.ORPHAN for key in orphans})
            if orphans and not report.dry_run:
                report.repaired[Drift.ORPHAN] += len(orphans)
                self._remove(orphans)

    def _still_held(self, suspects: list[bytes]) -> list[bytes]:
        """Return those that Redis still holds: a context that was deleted since it was scanned is none that was left behind."""
        if not suspects:
            return []
        with self._redis.pipeline(transaction=False) as pipeline:
            for key in suspects:
                pipeline.exists(key)
            return [key for key, is_held in zip(suspects, pipeline.execute(), strict=True) if is_held]

    def _remove(self, orphans: list[bytes]) -> None:
        for key in orphans:
            context = keys.parse_working(key)
            if context is not None:
                self._cache.remove(*context)
        self._redis.unlink(*orphans)

    def _reconcile_vectors(self, report: Report, tell: Tell, *, deep: bool) -> None:
        for kind in _MEMORIES:
            for step in self._ranges(partial(_memory_bounds, kind)):
                with self._database.transaction() as connection:
                    differs = repository.count_vector_drift(connection, kind, step.first, step.last, deep=deep) > 0
                report.ranges_compared += 1
                if differs:
                    report.ranges_different += 1
                    self._repair_vectors(report, kind, step, deep=deep)
                tell(step.done, step.of)

    def _repair_vectors(self, report: Report, kind: TargetKind, step: Range, *, deep: bool) -> None:
        with self._database.transaction() as connection:
            drift = repository.vector_drift(connection, kind, step.first, step.last, deep=deep)
        report.find({f"{_MEMORIES[kind]} {memory_id}": wrong for memory_id, wrong in drift.items()})
        if report.dry_run:
            return
        ids = list(drift)
        for start in range(0, len(ids), _IDS_A_STEP):
            some = ids[start : start + _IDS_A_STEP]
            with self._database.transaction() as connection:
                repository.repair_vectors(connection, kind, some)
            report.repaired.update(drift[memory_id] for memory_id in some)


def _plain(counts: Counter[str]) -> dict[str, int]:
    return {str(name): count for name, count in counts.items()}


def _memory_bounds(kind: TargetKind, connection: Connection, start: int) -> tuple[int, int] | None:
    return repository.memory_bounds(connection, kind, start)
