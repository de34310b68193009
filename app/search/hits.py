"""From a ranked candidate and what is stored of it to a result: pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.episodes.models import EpisodeView
from app.search.fusion import WEIGHTS, Ranked, recency, weigh_in
from app.search.query import SearchHit, SearchQuery
from app.semantic.models import SemanticView
from app.serialization import to_json
from app.working.models import ContextView

_IMPORTANCE_OF_PRIORITY = {"critical": 0.9, "high": 0.7, "normal": 0.5, "low": 0.1}
"""What a working memory's priority counts as where episodes have an importance; the lanes' least values, normal the default."""


@dataclass(frozen=True, slots=True)
class Weighing:
    """What a query makes of age and importance at one moment."""

    query: SearchQuery
    now: datetime

    def score(self, raw: float, moment: datetime, importance: float) -> tuple[float, dict[str, Any]]:
        """Return the final score in [0, 1] and its parts beside the raw one."""
        age = recency((self.now - moment).total_seconds() / 86_400)
        parts = {
            "recency": round(age, 6),
            "recency_weight": self.query.recency_weight,
            "importance": importance,
            "importance_weight": self.query.importance_weight,
        }
        return weigh_in(raw, age, importance, self.query.recency_weight, self.query.importance_weight), parts


def of_episode(weighing: Weighing, candidate: Ranked, view: EpisodeView) -> SearchHit:
    """Return the result that an episode is."""
    score, parts = weighing.score(candidate.score, view.occurred_at, view.importance_score)
    return SearchHit(
        memory_type="episodic",
        id=str(view.episode_id),
        episode_id=view.episode_id,
        agent_id=view.agent_id,
        content=view.content,
        score=score,
        score_breakdown=_parts(candidate) | parts,
        occurred_at=view.occurred_at,
        actor=view.actor,
        session_id=view.session_id,
        tags=view.tags,
        importance_score=view.importance_score,
        metadata=view.metadata,
        embedding_state=view.embedding_state,
    )


def of_semantic(weighing: Weighing, candidate: Ranked, view: SemanticView) -> SearchHit:
    """Return the result that a semantic memory is: its time is that of its last change, its importance its confidence."""
    score, parts = weighing.score(candidate.score, view.updated_at, view.confidence_score)
    return SearchHit(
        memory_type="semantic",
        id=str(view.memory_id),
        episode_id=None,
        agent_id=view.agent_id,
        content=view.definition,
        score=score,
        score_breakdown=_parts(candidate) | parts,
        occurred_at=view.updated_at,
        actor=None,
        session_id=None,
        tags=[],
        importance_score=view.confidence_score,
        metadata={"concept": view.concept, "relationships": view.relationships, "source_episodes": view.source_episodes},
        embedding_state=view.embedding_state,
    )


def of_working(weighing: Weighing, coverage: float, view: ContextView) -> SearchHit:
    """Return the result that a working memory is: it has words only, so beside meaning it weighs as words do."""
    weight = 1.0 if weighing.query.mode == "keyword" else WEIGHTS.lexical
    importance = _IMPORTANCE_OF_PRIORITY[view.priority]
    score, parts = weighing.score(weight * coverage, view.updated_at, importance)
    return SearchHit(
        memory_type="working",
        id=view.context_id,
        episode_id=None,
        agent_id=view.agent_id,
        content=to_json(view.active_content).decode(),
        score=score,
        score_breakdown={
            "vector": 0.0,
            "cosine": None,
            "lexical": round(coverage, 6),
            "bm25": None,
            "lexical_weight": weight,
            "neighbour": 0.0,
            "speaker": 0.0,
            "session": 0.0,
            "period": 0.0,
        }
        | parts,
        occurred_at=view.updated_at,
        actor=None,
        session_id=view.session_id,
        tags=[],
        importance_score=importance,
        metadata={"context_type": view.context_type, "priority": view.priority, "expires_at": view.expires_at},
        embedding_state=None,
    )


def _parts(candidate: Ranked) -> dict[str, Any]:
    return {
        "vector": round(candidate.vector, 6),
        "cosine": round(candidate.cosine, 6) if candidate.cosine is not None else None,
        "lexical": round(candidate.lexical, 6),
        "bm25": round(candidate.bm25, 6),
        "lexical_weight": round(candidate.lexical_weight, 6),
        "neighbour": round(candidate.neighbour, 6),
        "speaker": candidate.speaker,
        "session": round(candidate.session, 6),
        "period": candidate.period,
    }
