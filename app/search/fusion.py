"""Ranks candidates by meaning and words together: pure functions over scores."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

RECENCY_HALF_LIFE_DAYS = 30.0


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each ingredient of the ranking counts; 0 leaves it out. `python -m bench.ablation` shows what each of them is worth.

    Attributes:
        lexical: Of the words beside the meaning, when some episode holds all of the query's words, in [0, 1].
        coverage_power: How that falls with the share of the query's idf that the best episode holds: with the square root, since few
            long questions find all of their words in one episode. 0 lets it not fall.
        previous: Of the turn before, beside the turn itself, in meaning and in words.
        neighbour: Of the better one of the turns beside it.
        speaker: Of a speaker whom the query names.
        session: Of a session whose best turns are good.
        period: Of a time that the query speaks of.
    """

    lexical: float = 0.5
    coverage_power: float = 0.5
    previous: float = 0.35
    neighbour: float = 0.3
    speaker: float = 0.15
    session: float = 0.2
    period: float = 0.3


WEIGHTS = Weights()
"""What the service ranks by."""


@dataclass(frozen=True, slots=True)
class WordScore:
    """BM25 of a memory, and `coverage`, the share in [0, 1] of the query's idf that it holds."""

    bm25: float
    coverage: float


class Ranked(NamedTuple):
    """A candidate with its score in [0, 1] and its parts; `cosine` is None without a vector.

    `neighbour`, `speaker`, `session` and `period` are what the conversation around it adds (app/search/conversation.py), each in [0, 1].
    """

    target_id: UUID
    score: float
    vector: float
    lexical: float
    lexical_weight: float
    cosine: float | None
    bm25: float
    neighbour: float = 0.0
    speaker: float = 0.0
    session: float = 0.0
    period: float = 0.0


def fuse(
    cosines: Mapping[UUID, float], words: Mapping[UUID, WordScore], *, use_vector: bool, use_words: bool, weights: Weights = WEIGHTS
) -> list[Ranked]:
    """Return every candidate, best first; ties are broken by id, so the order is stable.

    A weighted sum of scores, not of ranks: the cosine spread over the candidates' range, and BM25 relative to the best. Rank fusion
    throws away how much better the first is than the tenth.

    Args:
        cosines: Raw cosine by memory, of every candidate that has a vector.
        words: Word score by memory; those absent hold no word of the query.
        use_vector: Whether meaning counts.
        use_words: Whether words count.
        weights: Of which `lexical` and `coverage_power` count here.

    Source: Bruch, Gai and Ingber, An Analysis of Fusion Functions for Hybrid Retrieval (2023), on convex combination.
    """
    candidates = (cosines.keys() if use_vector else set()) | (words.keys() if use_words else set())
    low, high = (min(cosines.values()), max(cosines.values())) if cosines else (0.0, 0.0)
    best_bm25 = max((score.bm25 for score in words.values()), default=0.0)
    weight = lexical_weight(words, weights) if use_vector and use_words else float(use_words)
    ranked = []
    for target_id in candidates:
        cosine, word = cosines.get(target_id), words.get(target_id)
        vector = _spread(cosine, low, high) if use_vector else 0.0
        lexical = word.bm25 / best_bm25 if word is not None and best_bm25 > 0 else 0.0
        score = (1 - weight) * vector + weight * lexical
        ranked.append(Ranked(target_id, score, vector, lexical, weight, cosine, word.bm25 if word is not None else 0.0))
    return in_order(ranked)


def in_order(candidates: Iterable[Ranked]) -> list[Ranked]:
    """Return candidates best first; ties are broken by id, so the order is stable."""
    return sorted(candidates, key=lambda each: (-each.score, each.target_id.int))


def lexical_weight(words: Mapping[UUID, WordScore], weights: Weights = WEIGHTS) -> float:
    """Return the weight of the words in [0, weights.lexical]: where few of the query's words occur anywhere, they say little."""
    covered = min(1.0, max((score.coverage for score in words.values()), default=0.0))
    return weights.lexical * float(covered**weights.coverage_power)


def _spread(cosine: float | None, low: float, high: float) -> float:
    if cosine is None:
        return 0.0
    return (cosine - low) / (high - low) if high > low else 1.0


def recency(age_days: float) -> float:
    """Return 1 for now (or the future), halving every 30 days."""
    return float(0.5 ** (max(0.0, age_days) / RECENCY_HALF_LIFE_DAYS))


def weigh_in(score: float, recency_score: float, importance: float, recency_weight: float, importance_weight: float) -> float:
    """Return the mean of score, recency and importance under weights 1, recency_weight and importance_weight; in [0, 1]."""
    total = score + recency_weight * recency_score + importance_weight * importance
    return total / (1.0 + recency_weight + importance_weight)
