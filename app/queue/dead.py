"""Dead rows: by cause, one by one, and back to work once the cause is gone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, text

from app.audit import record
from app.db import Database
from app.queue.models import TargetKind

_log = structlog.get_logger(__name__)

MOST_CAUSES = 100
MOST_REPLAYED = 10_000
"""Rows that one call replays at most: one transaction, well within the time of a statement."""

STEP_ROWS = 1_000
# A page ends between targets, so it may hold the further rows of its last one: a target has a row for each model, and there are few.
_MODELS_OF_TARGET = 16

# LIMIT NULL is without limit, so the total is that of every cause.
_CAUSES = text("SELECT c.*, sum(rows) OVER () AS total FROM memory_system.dead_causes(NULL) c ORDER BY rows DESC, cause LIMIT :most")
_ROWS = text("SELECT * FROM memory_system.dead_rows(CAST(:cause AS text), CAST(:after AS uuid), :most) ORDER BY target_id, model_id")
_COUNT_IDS = text("SELECT count(*) FROM memory_system.dead_rows(NULL, NULL, NULL) WHERE target_id = ANY (CAST(:ids AS uuid[]))")
_COUNT_CAUSE = text(
    "SELECT coalesce(sum(rows), 0) FROM memory_system.dead_causes(NULL) WHERE CAST(:cause AS text) IS NULL OR cause = CAST(:cause AS text)"
)
_REPLAY = text("SELECT memory_system.replay_dead(CAST(:ids AS uuid[]), CAST(:cause AS text), CAST(:dead_before AS timestamptz), :most)")
_NOW = text("SELECT clock_timestamp()")


@dataclass(frozen=True, slots=True)
class DeadCause:
    """Dead rows with the same last error; `examples` are up to five target ids, the latest dead first."""

    cause: str
    rows: int
    agents: int
    first_dead_at: datetime | None
    last_dead_at: datetime | None
    examples: list[UUID]


@dataclass(frozen=True, slots=True)
class DeadCauses:
    """The most frequent causes first, at most 100, and the rows of all causes together."""

    causes: list[DeadCause]
    total: int


@dataclass(frozen=True, slots=True)
class DeadRow:
    """One dead row: what it would have embedded, after how many attempts it died, and why. No content."""

    target_kind: TargetKind
    target_id: UUID
    model_id: int
    agent_id: str
    input_chars: int
    attempts: int
    cause: str
    enqueued_at: datetime
    dead_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadPage:
    """Dead rows in order of target_id and model_id; `next_cursor` is None at the end."""

    items: list[DeadRow]
    next_cursor: UUID | None


@dataclass(frozen=True, slots=True)
class DeadSelection:
    """Which dead rows are meant: those of some targets, those of a cause, or, with neither, all."""

    ids: tuple[UUID, ...] | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """How many rows were given a new set of attempts, and how many of the selection are dead still or again."""

    replayed: int
    remaining: int


class DeadRowService:
    """Shows and replays the dead rows of all agents.

    Args:
        database: Logged in as nexus_app or nexus_worker.
        ring: Wakes the dispatcher; called after a commit that made work for it.
    """

    def __init__(self, database: Database, ring: Callable[[], None]) -> None:
        self._database = database
        self._ring = ring

    def causes(self) -> DeadCauses:
        """Return the dead rows by cause."""
        with self._database.transaction() as connection:
            rows = [dict(row._mapping) for row in connection.execute(_CAUSES, {"most": MOST_CAUSES})]
        total = int(rows[0]["total"]) if rows else 0
        return DeadCauses([DeadCause(**{name: value for name, value in row.items() if name != "total"}) for row in rows], total)

    def rows(self, cause: str | None = None, after: UUID | None = None, limit: int = 100) -> DeadPage:
        """Return one page of dead rows.

        Args:
            cause: Only rows of this cause, as `causes` spells it; None for any.
            after: The `next_cursor` of the page before; None for the first page.
            limit: Rows of the page; the last target's rows stay together, so it may hold a few more.
        """
        most = limit + _MODELS_OF_TARGET
        with self._database.transaction() as connection:
            found = [DeadRow(**row._mapping) for row in connection.execute(_ROWS, {"cause": cause, "after": after, "most": most})]
        end = limit
        while 0 < end < len(found) and found[end].target_id == found[end - 1].target_id:
            end += 1
        return DeadPage(found[:end], found[end - 1].target_id if end < len(found) else None)

    def count(self, selection: DeadSelection) -> int:
        """Return how many rows of the selection are dead now."""
        with self._database.transaction() as connection:
            return _count(connection, selection)

    def replay(self, selection: DeadSelection, most: int, by: UUID | None) -> Replay:
        """Give dead rows a new set of attempts, in one transaction, and wake the dispatcher.

        Args:
            selection: Which; ids that are not dead do not count.
            most: Rows at most, up to 10,000.
            by: The key that asks, for the audit log; None for the command line.
        """
        with self._database.transaction() as connection:
            replayed = _replay(connection, selection, connection.execute(_NOW).scalar_one(), most)
            remaining = _count(connection, selection)
            self._record(connection, selection, replayed, by)
        self._announce(replayed)
        return Replay(replayed, remaining)

    def replay_in_steps(self, selection: DeadSelection, by: UUID | None) -> Iterator[int]:
        """Replay the whole selection, 1,000 rows a transaction, and yield after each how many it was.

        Rows that die again meanwhile stay dead, so this ends; rows that somebody holds just then are passed over.
        """
        with self._database.transaction() as connection:
            dead_before = connection.execute(_NOW).scalar_one()
        while True:
            with self._database.transaction() as connection:
                replayed = _replay(connection, selection, dead_before, STEP_ROWS)
                self._record(connection, selection, replayed, by)
            if not replayed:
                return
            self._announce(replayed)
            yield replayed

    @staticmethod
    def _record(connection: Connection, selection: DeadSelection, replayed: int, by: UUID | None) -> None:
        if not replayed:
            return
        # A cause that matched is one the queue wrote itself: a code and a class, whatever the caller may have sent otherwise.
        details = {"rows": replayed, "cause": selection.cause, "named_ids": len(selection.ids or ())}
        record(connection, by, "replay dead rows", None, details)
        _log.info("dead_rows_replayed", by=str(by) if by else "command line", **details)

    def _announce(self, replayed: int) -> None:
        if replayed:
            self._ring()


def _replay(connection: Connection, selection: DeadSelection, dead_before: datetime, most: int) -> int:
    values: dict[str, Any] = {"ids": _ids(selection), "cause": selection.cause, "dead_before": dead_before, "most": most}
    return int(connection.execute(_REPLAY, values).scalar_one())


def _count(connection: Connection, selection: DeadSelection) -> int:
    if selection.ids is not None:
        return int(connection.execute(_COUNT_IDS, {"ids": _ids(selection)}).scalar_one())
    return int(connection.execute(_COUNT_CAUSE, {"cause": selection.cause}).scalar_one())


def _ids(selection: DeadSelection) -> list[UUID] | None:
    return None if selection.ids is None else list(selection.ids)
