"""All SQL of search: calls of the definer functions that may use the indexes, each bound to the transaction's agent."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from app.embedding.models import EmbeddingModel
from app.search.conversation import Turn
from app.search.fusion import WordScore

_BY_VECTOR = text(
    "SELECT episode_id, cosine FROM nexus_memory.search_by_vector("
    "CAST(:query AS public.vector), CAST(:model_id AS smallint), :most, CAST(:filters AS jsonb))"
)
_BY_WORDS = text("SELECT episode_id, bm25, coverage FROM nexus_memory.search_by_words(:query, :most, CAST(:filters AS jsonb))")
# One trip for both arms, and for the cosines of what only words have found.
_BY_BOTH = text(
    """
    WITH words AS MATERIALIZED (
        SELECT episode_id, bm25, coverage FROM nexus_memory.search_by_words(:words, :most, CAST(:filters AS jsonb))
    ), near AS MATERIALIZED (
        SELECT episode_id, max(cosine) AS cosine FROM nexus_memory.search_by_vector(
            CAST(:query AS public.vector), CAST(:model_id AS smallint), :most, CAST(:filters AS jsonb)) GROUP BY episode_id
    ), farther AS MATERIALIZED (
        SELECT episode_id, cosine FROM nexus_memory.cosine_of(
            ARRAY(SELECT episode_id FROM words EXCEPT SELECT episode_id FROM near),
            CAST(:query AS public.vector), CAST(:model_id AS smallint))
    )
    SELECT episode_id, coalesce(n.cosine, f.cosine), w.bm25, w.coverage
    FROM words w FULL JOIN near n USING (episode_id) LEFT JOIN farther f USING (episode_id)
    """
)
_TURNS_OF = text(
    """
    WITH turns AS MATERIALIZED (SELECT * FROM nexus_memory.turns_of(CAST(:ids AS uuid[])))
    SELECT t.episode_id, t.session_id, t.actor, t.occurred_at, t.previous_id, t.following_id, c.cosine
    FROM turns t LEFT JOIN nexus_memory.cosine_of(
        ARRAY(SELECT episode_id FROM turns EXCEPT SELECT unnest(CAST(:known AS uuid[]))),
        CAST(:query AS public.vector), CAST(:model_id AS smallint)) c USING (episode_id)
    """
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


@dataclass(frozen=True, slots=True)
class Encoded:
    """A query's vector and the model it is of."""

    vector: NDArray[np.float32]
    model: EmbeddingModel


def by_vector(connection: Connection, encoded: Encoded, most: int, filters: str) -> dict[UUID, float]:
    """Return the cosine of the nearest episodes, by id; at most `most`, fewer only when the agent has fewer that pass the filters."""
    parameters = {"query": _literal(encoded.vector), "model_id": encoded.model.model_id, "most": most, "filters": filters}
    rows = connection.execute(_BY_VECTOR, parameters)
    cosines: dict[UUID, float] = {}
    for episode_id, cosine in rows:
        cosines[episode_id] = max(cosine, cosines.get(episode_id, -1.0))
    return cosines


def by_words(connection: Connection, query: str, most: int, filters: str) -> dict[UUID, WordScore]:
    """Return the word scores of the episodes that hold any word of the query, by id; at most `most`, the best."""
    rows = connection.execute(_BY_WORDS, {"query": query, "most": most, "filters": filters})
    return {row.episode_id: WordScore(row.bm25, row.coverage) for row in rows}


def by_both(
    connection: Connection, query: str, encoded: Encoded, most: int, filters: str
) -> tuple[dict[UUID, float], dict[UUID, WordScore]]:
    """Return what by_vector() and by_words() do; the cosines also of what only words have found, where it has a present vector."""
    parameters = {"words": query, "query": _literal(encoded.vector), "model_id": encoded.model.model_id, "most": most, "filters": filters}
    cosines: dict[UUID, float] = {}
    words: dict[UUID, WordScore] = {}
    for episode_id, cosine, bm25, coverage in connection.execute(_BY_BOTH, parameters):
        if cosine is not None:
            cosines[episode_id] = cosine
        if bm25 is not None:
            words[episode_id] = WordScore(bm25, coverage)
    return cosines, words


def turns_of(
    connection: Connection, ids: Sequence[UUID], encoded: Encoded, known: Collection[UUID]
) -> tuple[dict[UUID, Turn], dict[UUID, float]]:
    """Return the places of the named episodes, and of the turns right beside them, in their sessions, by id; and cosines.

    Args:
        connection: In a transaction of the agent.
        ids: Of whom the places are wanted.
        encoded: The query.
        known: Of whom no cosine is wanted; of the others one is returned for each that has a present vector.
    """
    parameters = {
        "ids": list(map(str, ids)),
        "known": list(map(str, known)),
        "query": _literal(encoded.vector),
        "model_id": encoded.model.model_id,
    }
    turns: dict[UUID, Turn] = {}
    cosines: dict[UUID, float] = {}
    for episode_id, session_id, actor, occurred_at, previous, following, cosine in connection.execute(_TURNS_OF, parameters):
        turns[episode_id] = Turn(session_id, actor, occurred_at, previous, following)
        if cosine is not None:
            cosines[episode_id] = cosine
    return turns, cosines


def is_complete(connection: Connection, model_id: int) -> bool:
    """Return whether all of the agent's episodes have vectors of a model that is not active yet."""
    return bool(connection.execute(_IS_COMPLETE, {"model_id": model_id}).scalar_one())


def semantic_by_vector(connection: Connection, encoded: Encoded, most: int) -> dict[UUID, float]:
    """Return the cosine of the nearest semantic memories, by id; at most `most`, fewer only when the agent has fewer."""
    rows = connection.execute(_SEMANTIC_BY_VECTOR, {"query": _literal(encoded.vector), "model_id": encoded.model.model_id, "most": most})
    return {row.memory_id: row.cosine for row in rows}


def semantic_by_words(connection: Connection, query: str, most: int) -> dict[UUID, WordScore]:
    """Return the word scores of the semantic memories that hold any word of the query, by id; at most `most`, the best."""
    rows = connection.execute(_SEMANTIC_BY_WORDS, {"query": query, "most": most})
    return {row.memory_id: WordScore(row.bm25, row.coverage) for row in rows}


def working_by_words(connection: Connection, query: str, most: int, session_id: str | None) -> dict[str, float]:
    """Return the share of the query's words that each live working memory holds, by context id; those with none are absent."""
    rows = connection.execute(_WORKING_BY_WORDS, {"query": query, "most": most, "session_id": session_id})
    return {row.context_id: row.coverage for row in rows}
