"""All SQL of search: calls of the definer functions that may use the indexes, each bound to the transaction's agent."""

from collections.abc import Sequence
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from app.search.conversation import Turn
from app.search.fusion import WordScore

_BY_VECTOR = text(
    "SELECT episode_id, cosine FROM nexus_memory.search_by_vector("
    "CAST(:query AS public.vector), CAST(:model_id AS smallint), :most, CAST(:filters AS jsonb))"
)
_BY_WORDS = text("SELECT episode_id, bm25, coverage FROM nexus_memory.search_by_words(:query, :most, CAST(:filters AS jsonb))")
_COSINE_OF = text(
    "SELECT episode_id, cosine FROM nexus_memory.cosine_of("
    "CAST(:ids AS uuid[]), CAST(:query AS public.vector), CAST(:model_id AS smallint))"
)

_TURNS_OF = text(
    "SELECT episode_id, session_id, actor, occurred_at, previous_id, following_id FROM nexus_memory.turns_of(CAST(:ids AS uuid[]))"
)

_SEMANTIC_BY_VECTOR = text(
    "SELECT memory_id, cosine FROM nexus_memory.search_semantic_by_vector("
    "CAST(:query AS public.vector), CAST(:model_id AS smallint), :most)"
)
_SEMANTIC_BY_WORDS = text("SELECT memory_id, bm25, coverage FROM nexus_memory.search_semantic_by_words(:query, :most)")
_WORKING_BY_WORDS = text("SELECT context_id, coverage FROM nexus_memory.search_working(:query, :most, :session_id)")

_IS_COMPLETE = text(
    "SELECT EXISTS (SELECT 1 FROM memory_system.agent_models"
    " WHERE agent_id = current_setting('app.current_agent_id') AND model_id = :model_id)"
)


def _literal(vector: NDArray[np.float32]) -> str:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def by_vector(connection: Connection, vector: NDArray[np.float32], model_id: int, most: int, filters: str) -> dict[UUID, float]:
    """Return the cosine of the nearest episodes, by id; at most `most`, fewer only when the agent has fewer that pass the filters."""
    rows = connection.execute(_BY_VECTOR, {"query": _literal(vector), "model_id": model_id, "most": most, "filters": filters})
    cosines: dict[UUID, float] = {}
    for episode_id, cosine in rows:
        cosines[episode_id] = max(cosine, cosines.get(episode_id, -1.0))
    return cosines


def by_words(connection: Connection, query: str, most: int, filters: str) -> dict[UUID, WordScore]:
    """Return the word scores of the episodes that hold any word of the query, by id; at most `most`, the best."""
    rows = connection.execute(_BY_WORDS, {"query": query, "most": most, "filters": filters})
    return {row.episode_id: WordScore(row.bm25, row.coverage) for row in rows}


def cosine_of(connection: Connection, ids: Sequence[UUID], vector: NDArray[np.float32], model_id: int) -> dict[UUID, float]:
    """Return the cosine of each named episode that has a present vector, by id."""
    rows = connection.execute(_COSINE_OF, {"ids": list(map(str, ids)), "query": _literal(vector), "model_id": model_id})
    return {row.episode_id: row.cosine for row in rows}


def turns_of(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Turn]:
    """Return the places of the named episodes, and of the turns right beside them, in their sessions, by id."""
    rows = connection.execute(_TURNS_OF, {"ids": list(map(str, ids))})
    return {row.episode_id: Turn(row.session_id, row.actor, row.occurred_at, row.previous_id, row.following_id) for row in rows}


def is_complete(connection: Connection, model_id: int) -> bool:
    """Return whether all of the agent's episodes have vectors of a model that is not active yet."""
    return bool(connection.execute(_IS_COMPLETE, {"model_id": model_id}).scalar_one())


def semantic_by_vector(connection: Connection, vector: NDArray[np.float32], model_id: int, most: int) -> dict[UUID, float]:
    """Return the cosine of the nearest semantic memories, by id; at most `most`, fewer only when the agent has fewer."""
    rows = connection.execute(_SEMANTIC_BY_VECTOR, {"query": _literal(vector), "model_id": model_id, "most": most})
    return {row.memory_id: row.cosine for row in rows}


def semantic_by_words(connection: Connection, query: str, most: int) -> dict[UUID, WordScore]:
    """Return the word scores of the semantic memories that hold any word of the query, by id; at most `most`, the best."""
    rows = connection.execute(_SEMANTIC_BY_WORDS, {"query": query, "most": most})
    return {row.memory_id: WordScore(row.bm25, row.coverage) for row in rows}


def working_by_words(connection: Connection, query: str, most: int, session_id: str | None) -> dict[str, float]:
    """Return the share of the query's words that each live working memory holds, by context id; those with none are absent."""
    rows = connection.execute(_WORKING_BY_WORDS, {"query": query, "most": most, "session_id": session_id})
    return {row.context_id: row.coverage for row in rows}
