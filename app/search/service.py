"""One search from question to results: candidates by vector and by words, fused, then read."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

import orjson
from sqlalchemy import Connection

from app.db import Database
from app.episodes import repository as episode_repository
from app.search import hits, repository
from app.search.conversation import Question, rank_turns
from app.search.encoding import QueryEncoder
from app.search.fusion import WEIGHTS, Fusion, Ranked, Weights, WordScore, best_of
from app.search.query import SearchAnswer, SearchHit, SearchQuery
from app.search.repository import Encoded
from app.search.reranking import Reranker
from app.search.temporal import periods_in
from app.semantic import repository as semantic_repository
from app.working import repository as working_repository

# Candidates of each arm. Fusion can lift what one arm ranks low, so there are more of them than results.
_LEAST_CANDIDATES = 200
# Whose conversation is looked at: an answer stands beside one of these, or is one. More of them where the question names a time, by
# which what is far down otherwise may come up.
_CONVERSATIONS = 50
_CONVERSATIONS_IN_TIME = 200

_WORKING_FILTERS = {"session_id"}


@dataclass(slots=True)
class _Candidates:
    """What the arms found, by id: episodes and semantic memories together, so that one fusion ranks them."""

    cosines: dict[UUID, float] = field(default_factory=dict)
    words: dict[UUID, WordScore] = field(default_factory=dict)
    working: dict[str, float] = field(default_factory=dict)


class SearchService:
    """Finds an agent's memories again.

    Args:
        database: Logged in as nexus_app.
        encoder: Makes query vectors.
        reranker: Orders the best results anew; None leaves them as they are.
        weights: How much each ingredient of the ranking counts.
    """

    def __init__(self, database: Database, encoder: QueryEncoder, reranker: Reranker | None = None, *, weights: Weights = WEIGHTS) -> None:
        self._database = database
        self._encoder = encoder
        self._reranker = reranker
        self._weights = weights

    def start_loading(self) -> None:
        """Begin to load the models; returns at once."""
        self._encoder.start_loading()
        if self._reranker is not None:
            self._reranker.start_loading()

    def stop(self) -> None:
        """Look after the models no longer."""
        self._encoder.stop()

    def ready(self) -> tuple[bool, str]:
        """Return whether search by meaning works, and if not, why."""
        return self._encoder.ready()

    def search(self, agent_id: str, query: SearchQuery) -> SearchAnswer:
        """Return the agent's best memories for a query, best first; empty when nothing qualifies.

        A kind of memory that lacks what a filter asks for cannot meet it: semantic memories are found without filters only, working
        memories with none but a session.

        Raises:
            EncoderUnavailable: The mode needs a query vector and the model is not loaded.
        """
        started = time.perf_counter()
        kinds = _kinds(query)
        # Modes by one arm alone do what they say and nothing else, and weights that the caller gave are kept.
        reranker = self._reranker if query.mode == "hybrid" and not (query.recency_weight or query.importance_weight) else None
        # The vector is made before the transaction, which must hold no model call.
        encoded = self._encode(agent_id, query.query) if query.mode != "keyword" else None
        with self._database.transaction(agent_id) as connection:
            found = _collect(connection, query, kinds, encoded)
            # More than asked for when weights or the reranker can still change the order.
            most = query.limit if reranker is None else max(query.limit, reranker.candidates)
            taken = None if query.recency_weight or query.importance_weight else most
            ranked = _rank(connection, query, found, encoded, weights=self._weights, most=taken)
            results = _read(connection, agent_id, query, ranked, found.working)[:most]
            pending = episode_repository.count_open(connection, agent_id)
        if reranker is not None:
            results = reranker.rerank(query.query, results)[: query.limit]
        return SearchAnswer(results, pending, round((time.perf_counter() - started) * 1000, 2))

    def _encode(self, agent_id: str, query: str) -> Encoded:
        """Return the query under the active model, or, during a migration, under the target once it has all of the agent's memories."""
        models = self._encoder.models()
        model = models.active
        if models.target is not None:
            with self._database.transaction(agent_id) as connection:
                if repository.is_complete(connection, models.target.model_id):
                    model = models.target
        return Encoded(self._encoder.encode(query, model), model)


def _kinds(query: SearchQuery) -> set[str]:
    filters = query.filters.present().keys()
    able = {"episodic"}
    if not filters:
        able.add("semantic")
    if filters <= _WORKING_FILTERS and query.mode != "vector":
        able.add("working")
    return able.intersection(query.memory_types)


def _collect(connection: Connection, query: SearchQuery, kinds: set[str], encoded: Encoded | None) -> _Candidates:
    most = max(_LEAST_CANDIDATES, 2 * query.limit)
    found = _Candidates()
    if "episodic" in kinds:
        _collect_episodes(connection, query, most, encoded, found)
    if "semantic" in kinds:
        if query.mode != "vector":
            found.words |= repository.semantic_by_words(connection, query.query, most)
        if encoded is not None:
            found.cosines |= repository.semantic_by_vector(connection, encoded, most)
    if "working" in kinds:
        found.working = repository.working_by_words(connection, query.query, query.limit, query.filters.session_id)
    return found


def _collect_episodes(connection: Connection, query: SearchQuery, most: int, encoded: Encoded | None, found: _Candidates) -> None:
    filters = orjson.dumps(query.filters.present()).decode()
    if encoded is None:
        found.words = repository.by_words(connection, query.query, most, filters)
    elif query.mode == "vector":
        found.cosines = repository.by_vector(connection, encoded, most, filters)
    else:
        found.cosines, found.words = repository.by_both(connection, query.query, encoded, most, filters)


def _rank(
    connection: Connection, query: SearchQuery, found: _Candidates, encoded: Encoded | None, *, weights: Weights, most: int | None
) -> list[Ranked]:
    """Return the best candidates, best first: all of them, or `most`."""
    use_vector, use_words = query.mode != "keyword", query.mode != "vector"
    fusion = Fusion(found.cosines, found.words, use_vector=use_vector, use_words=use_words, weights=weights)
    # A least score may leave out some of the best.
    wanted = most if query.min_score is None else None
    if query.mode == "hybrid" and encoded is not None and fusion.scores:
        ranked = _rank_in_conversation(connection, query, found, encoded, fusion.scores, weights=weights, most=wanted)
    else:
        ranked = fusion.best(wanted)
    if query.min_score is None:
        return ranked
    return [candidate for candidate in ranked if candidate.cosine is None or candidate.cosine >= query.min_score][:most]


def _rank_in_conversation(
    connection: Connection,
    query: SearchQuery,
    found: _Candidates,
    encoded: Encoded,
    scores: Mapping[UUID, float],
    *,
    weights: Weights,
    most: int | None,
) -> list[Ranked]:
    """Return the best of the candidates ranked anew with the conversations around the best of them, all or `most`.

    The turns beside those are candidates too, unless a filter was given that they may not pass: then they only testify.
    """
    periods = periods_in(query.query, datetime.now(UTC))
    best = best_of(scores.items(), _CONVERSATIONS_IN_TIME if periods else _CONVERSATIONS)
    turns, beside = repository.turns_of(connection, [target_id for target_id, _ in best], encoded, found.cosines.keys())
    eligible = scores.keys() if query.filters.present() else scores.keys() | turns.keys()
    question = Question(query.query, periods)
    return rank_turns(question, found.cosines | beside, found.words, turns, eligible, weights=weights, most=most)


def _read(
    connection: Connection, agent_id: str, query: SearchQuery, ranked: Sequence[Ranked], working: dict[str, float]
) -> list[SearchHit]:
    """Return the results, best first; what was deleted since it was found is left out."""
    weighing = hits.Weighing(query, datetime.now(UTC))
    ids = [candidate.target_id for candidate in ranked]
    results: list[SearchHit] = []
    episodes = episode_repository.get_many(connection, agent_id, ids) if ids else {}
    others = [target_id for target_id in ids if target_id not in episodes]
    semantic = semantic_repository.get_many(connection, agent_id, others) if others else {}
    for candidate in ranked:
        if (episode := episodes.get(candidate.target_id)) is not None:
            results.append(hits.of_episode(weighing, candidate, episode))
        elif (memory := semantic.get(candidate.target_id)) is not None:
            results.append(hits.of_semantic(weighing, candidate, memory))
    if working:
        contexts = working_repository.get_many(connection, agent_id, list(working))
        results.extend(hits.of_working(weighing, working[context_id], view) for context_id, view in contexts.items())
    results.sort(key=lambda hit: -hit.score)
    return [replace(hit, score=round(hit.score, 6)) for hit in results]
