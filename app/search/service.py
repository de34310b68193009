"""One search from question to results: candidates by vector and by words, fused, then read."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.db import Database
from app.episodes import repository as episode_repository
from app.episodes.models import EpisodeView
from app.errors import InvalidRequest
from app.search import repository
from app.search.encoding import QueryEncoder
from app.search.fusion import Ranked, fuse, recency, weigh_in
from app.search.query import SearchAnswer, SearchHit, SearchQuery

# Candidates of each arm. Fusion can lift what one arm ranks low, so there are more of them than results.
_LEAST_CANDIDATES = 200


class SearchService:
    """Finds an agent's episodes again.

    Args:
        database: Logged in as nexus_app.
        encoder: Makes query vectors.
    """

    def __init__(self, database: Database, encoder: QueryEncoder) -> None:
        self._database = database
        self._encoder = encoder

    def start_loading(self) -> None:
        """Begin to load the model; returns at once."""
        self._encoder.start_loading()

    def ready(self) -> tuple[bool, str]:
        """Return whether search by meaning works, and if not, why."""
        return self._encoder.ready()

    def search(self, agent_id: str, query: SearchQuery) -> SearchAnswer:
        """Return the agent's best episodes for a query, best first; empty when nothing qualifies.

        Raises:
            EncoderUnavailable: The mode needs a query vector and the model is not loaded.
            InvalidRequest: A memory type is asked for that cannot be searched.
        """
        if set(query.memory_types) != {"episodic"}:
            raise InvalidRequest("memory_types: only episodic can be searched")
        started = time.perf_counter()
        # The vector is made before the transaction, which must hold no model call.
        encoded = self._encode(agent_id, query.query) if query.mode != "keyword" else None
        filters = orjson.dumps(query.filters.present()).decode()
        with self._database.transaction(agent_id) as connection:
            ranked = self._rank(connection, query, filters, encoded)
            # More than asked for when weights can still change the order.
            taken = ranked if query.recency_weight or query.importance_weight else ranked[: query.limit]
            views = episode_repository.get_many(connection, agent_id, [candidate.episode_id for candidate in taken])
            pending = episode_repository.count_open(connection, agent_id)
        hits = _hits(query, taken, views)
        return SearchAnswer(hits, pending, round((time.perf_counter() - started) * 1000, 2))

    def _encode(self, agent_id: str, query: str) -> tuple[NDArray[np.float32], int]:
        """Return the query's vector and the number of its model: during a migration the target, once it has all of the agent's episodes."""
        models = self._encoder.models()
        model = models.active
        if models.target is not None:
            with self._database.transaction(agent_id) as connection:
                if repository.is_complete(connection, models.target.model_id):
                    model = models.target
        return self._encoder.encode(query, model), model.model_id

    def _rank(
        self, connection: Connection, query: SearchQuery, filters: str, encoded: tuple[NDArray[np.float32], int] | None
    ) -> list[Ranked]:
        most = max(_LEAST_CANDIDATES, 2 * query.limit)
        words = repository.by_words(connection, query.query, most, filters) if query.mode != "vector" else {}
        cosines: dict[UUID, float] = {}
        if encoded is not None:
            vector, model_id = encoded
            cosines = repository.by_vector(connection, vector, model_id, most, filters)
            unseen = [episode_id for episode_id in words if episode_id not in cosines]
            if unseen:
                cosines.update(repository.cosine_of(connection, unseen, vector, model_id))
        ranked = fuse(cosines, words, use_vector=query.mode != "keyword", use_words=query.mode != "vector")
        if query.min_score is None:
            return ranked
        return [candidate for candidate in ranked if candidate.cosine is None or candidate.cosine >= query.min_score]


def _hits(query: SearchQuery, ranked: Sequence[Ranked], views: dict[UUID, EpisodeView]) -> list[SearchHit]:
    now = datetime.now(UTC)
    hits = [_hit(query, candidate, views[candidate.episode_id], now) for candidate in ranked if candidate.episode_id in views]
    hits.sort(key=lambda hit: -hit.score)
    return [replace(hit, score=round(hit.score, 6)) for hit in hits[: query.limit]]


def _hit(query: SearchQuery, candidate: Ranked, view: EpisodeView, now: datetime) -> SearchHit:
    recency_score = recency((now - view.occurred_at).total_seconds() / 86_400)
    return SearchHit(
        memory_type="episodic",
        id=str(view.episode_id),
        episode_id=view.episode_id,
        agent_id=view.agent_id,
        content=view.content,
        score=weigh_in(candidate.score, recency_score, view.importance_score, query.recency_weight, query.importance_weight),
        score_breakdown={
            "vector": round(candidate.vector, 6),
            "cosine": round(candidate.cosine, 6) if candidate.cosine is not None else None,
            "lexical": round(candidate.lexical, 6),
            "bm25": round(candidate.bm25, 6),
            "lexical_weight": round(candidate.lexical_weight, 6),
            "recency": round(recency_score, 6),
            "recency_weight": query.recency_weight,
            "importance": view.importance_score,
            "importance_weight": query.importance_weight,
        },
        occurred_at=view.occurred_at,
        actor=view.actor,
        session_id=view.session_id,
        tags=view.tags,
        importance_score=view.importance_score,
        metadata=view.metadata,
        embedding_state=view.embedding_state,
    )
