"""How much of what an exact scan finds a search by index finds: measured by sample, on what is really stored."""

from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, text

from app.db import Database

_log = structlog.get_logger(__name__)

_MOST = 10
_CANDIDATES = 200
"""What a search asks for: app/search/service.py."""

_EXACT_BELOW = 5_000
"""Chunks below which search_by_vector() never asks an index, so that there is nothing to compare."""

_NEVER_INDEX, _AS_SEARCHES_DO = 2**31 - 1, None
_LOW = 0.95
"""A recall below this is worth a warning."""

_ACTIVE = text("SELECT model_id FROM memory_system.embedding_models WHERE is_active")
_LARGE_AGENTS = text(
    """
    SELECT agent_id FROM nexus_memory.episode_chunks WHERE model_id = :model_id
    GROUP BY agent_id HAVING count(*) >= :exact_below ORDER BY random() LIMIT :most
    """
)
# Between two stored vectors: near what is stored, as questions are, and equal to none of it.
_QUERY = text(
    """
    SELECT public.l2_normalize(public.sum(c.embedding))::text FROM (
        SELECT k.embedding FROM nexus_memory.episode_chunks k
        WHERE k.agent_id = :agent_id AND k.model_id = :model_id AND k.input_sha256 >= (SELECT decode(md5(random()::text), 'hex'))
        ORDER BY k.input_sha256 LIMIT 2) c
    """
)
_SET_AGENT = text("SELECT set_config('app.current_agent_id', :agent_id, true)")
_NEAREST = text(
    "SELECT episode_id FROM nexus_memory.search_by_vector(CAST(:query AS public.vector), CAST(:model_id AS smallint), :most,"
    " '{}'::jsonb, CAST(:exact_below AS integer)) ORDER BY cosine DESC, episode_id"
)
_RECORD = text("INSERT INTO memory_system.recall_checks (model_id, samples, recall, worst) VALUES (:model_id, :samples, :recall, :worst)")
_FORGET = text("DELETE FROM memory_system.recall_checks WHERE checked_at < now() - interval '30 days'")


@dataclass(frozen=True, slots=True)
class Recall:
    """The share in [0, 1] of the ten nearest that a search found: over all samples, and in the worst one."""

    samples: int
    mean: float
    worst: float


class RecallService:
    """Compares searches with an exact scan for agents that are large enough to be searched through an index.

    Args:
        database: Logged in as nexus_worker.
        exact_below: Chunks from which an agent counts as large.
    """

    def __init__(self, database: Database, exact_below: int = _EXACT_BELOW) -> None:
        self._database = database
        self._exact_below = exact_below

    def check(self, samples: int = 20) -> Recall | None:
        """Ask both ways for the ten nearest of as many queries as asked for, record what came out, and return it.

        Returns:
            None when no agent is large: then every search is exact.
        """
        with self._database.transaction() as connection:
            model_id = int(connection.execute(_ACTIVE).scalar_one())
            parameters = {"model_id": model_id, "exact_below": self._exact_below, "most": samples}
            agents = [row.agent_id for row in connection.execute(_LARGE_AGENTS, parameters)]
        if not agents:
            return None
        found = []
        for number in range(samples):
            # A transaction for each, so that none is long.
            with self._database.transaction() as connection:
                share = _sample(connection, agents[number % len(agents)], model_id)
            if share is not None:
                found.append(share)
        if not found:
            return None
        recall = Recall(len(found), sum(found) / len(found), min(found))
        with self._database.transaction() as connection:
            connection.execute(_FORGET)
            connection.execute(_RECORD, {"model_id": model_id, "samples": recall.samples, "recall": recall.mean, "worst": recall.worst})
        if recall.mean < _LOW:
            _log.warning(
                "index_recall_low", recall=round(recall.mean, 3), samples=recall.samples, action="REINDEX the model's vector index"
            )
        return recall


def _sample(connection: Connection, agent_id: str, model_id: int) -> float | None:
    query = connection.execute(_QUERY, {"agent_id": agent_id, "model_id": model_id}).scalar_one()
    if query is None:
        return None
    connection.execute(_SET_AGENT, {"agent_id": agent_id})
    parameters = {"query": query, "model_id": model_id, "most": _CANDIDATES}
    exact = _best(connection, parameters | {"exact_below": _NEVER_INDEX})
    # A short answer of an index is completed by an exact scan, as in a search.
    found = _best(connection, parameters | {"exact_below": _AS_SEARCHES_DO})
    return len(exact & found) / len(exact) if exact else None


def _best(connection: Connection, parameters: dict[str, Any]) -> set[Any]:
    nearest = dict.fromkeys(row.episode_id for row in connection.execute(_NEAREST, parameters))
    return set(list(nearest)[:_MOST])
