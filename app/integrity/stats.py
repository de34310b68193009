"""Counts of what is stored, all from the same definitions as the accounting identity."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import text

from app.db import Database
from app.queue import repository as queue_repository
from app.queue.models import QueueCounts

_TOTALS = text("SELECT * FROM memory_system.totals(:agent_id)")
_AGENTS = text("SELECT * FROM memory_system.agent_totals()")


class StatsService:
    """Totals over all agents or one.

    Args:
        database: Logged in as nexus_app.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

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
