"""Counts of what is stored, all from the same definitions as the accounting identity."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import text

from app.db import Database
from app.queue import repository as queue_repository
from app.queue.models import QueueCounts

_TOTALS = text("SELECT * FROM memory_system.totals(:agent_id)")
# Every run is a row and stays: what is summed here survives restarts and grows only.
_DRIFT = text(
    """
    SELECT r.kind, d.drift, sum((r.found ->> d.drift)::bigint) AS found, sum((r.repaired ->> d.drift)::bigint) AS repaired
    FROM memory_system.reconciliation_runs r
    CROSS JOIN LATERAL (SELECT jsonb_object_keys(r.found) UNION SELECT jsonb_object_keys(r.repaired)) AS d (drift)
    WHERE NOT r.dry_run GROUP BY r.kind, d.drift ORDER BY r.kind, d.drift
    """
)
_LAST_RUNS = text(
    "SELECT kind, extract(epoch FROM max(finished_at))::double precision AS finished FROM memory_system.reconciliation_runs"
    " WHERE NOT dry_run AND error IS NULL AND finished_at IS NOT NULL GROUP BY kind"
)
_RECALL = text("SELECT recall FROM memory_system.recall_checks ORDER BY check_id DESC LIMIT 1")
_AGENTS = text("SELECT * FROM memory_system.agent_totals()")


@dataclass(frozen=True, slots=True)
class ReconciliationTotals:
    """What all runs found and repaired, by kind and drift, and when the last good one of each kind ended, in seconds since 1970."""

    found: Mapping[tuple[str, str], int]
    repaired: Mapping[tuple[str, str], int]
    last_finished: Mapping[str, float]


class StatsService:
    """Totals over all agents or one.

    Args:
        database: Logged in as nexus_app.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def reconciliation(self) -> ReconciliationTotals:
        """Return what all runs of reconciliation found and repaired, dry runs left out."""
        with self._database.transaction() as connection:
            rows = list(connection.execute(_DRIFT))
            last = {row.kind: row.finished for row in connection.execute(_LAST_RUNS)}
        return ReconciliationTotals(
            found={(row.kind, row.drift): int(row.found or 0) for row in rows},
            repaired={(row.kind, row.drift): int(row.repaired or 0) for row in rows},
            last_finished=last,
        )

    def recall(self) -> float | None:
        """Return the recall at 10 of the vector index in its latest check; None when there was none."""
        with self._database.transaction() as connection:
            found: float | None = connection.execute(_RECALL).scalar_one_or_none()
        return found

    def queue(self) -> QueueCounts:
        """Return the queue's rows by state over all agents."""
        with self._database.transaction() as connection:
            return queue_repository.counts(connection, None)

    def stats(self, agent_id: str | None, *, per_agent: bool = False) -> dict[str, Any]:
        """Return {episodes, embedded, chunks, agents, embeddings_queue: {state: rows}, oldest_pending_age_seconds}.

        Args:
            agent_id: Count this agent only; None counts all.
            per_agent: Add `per_agent`, a list of {agent_id, episodes, embedded} in order of agent_id, at most 1,000.
        """
        with self._database.transaction(agent_id) as connection:
            answer: dict[str, Any] = dict(connection.execute(_TOTALS, {"agent_id": agent_id}).one()._mapping)
            counts = asdict(queue_repository.counts(connection, agent_id))
            answer["oldest_pending_age_seconds"] = counts.pop("oldest_pending_seconds")
            answer["embeddings_queue"] = counts
            if per_agent:
                answer["per_agent"] = [dict(row._mapping) for row in connection.execute(_AGENTS)]
        return answer
