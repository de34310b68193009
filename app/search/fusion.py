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


class Fusion:
    """Scores candidates by meaning and words together.

    A weighted sum of scores, not of ranks: the cosine spread over the candidates' range, and BM25 relative to the best. Rank fusion
    throws away how much better the first is than the tenth.

    Args:
        cosines: Raw cosine by memory, of every candidate that has a vector.
        words: Word score by memory; those absent hold no word of the query.
        use_vector: Whether meaning counts.
        use_words: Whether words count.
        weights: Of which `lexical` and `coverage_power` count here.

    Attributes:
        scores: Of every candidate, in [0, 1].

    Source: Bruch, Gai and Ingber, An Analysis of Fusion Functions for Hybrid Retrieval (2023), on convex combination.
    """

    def __init__(
        self,
        cosines: Mapping[UUID, float],
        words: Mapping[UUID, WordScore],
        *,
        use_vector: bool = True,
        use_words: bool = True,
        weights: Weights = WEIGHTS,
    ) -> None:
        self._cosines, self._words = cosines, words
        self._weight = weight = lexical_weight(words, weights) if use_vector and use_words else float(use_words)
        self._vectors = _spread(cosines) if use_vector else {}
        self._lexicals = _relative(words)
        scores = {target_id: (1 - weight) * vector for target_id, vector in self._vectors.items()}
        if use_words:
            for target_id, lexical in self._lexicals.items():
                scores[target_id] = scores.get(target_id, 0.0) + weight * lexical
        self.scores = scores

    def best(self, most: int | None = None) -> list[Ranked]:
        """Return the best candidates, best first: all of them, or `most`."""
        return [self.explain(target_id, score) for target_id, score in best_of(self.scores.items(), most)]

    def explain(self, target_id: UUID, score: float) -> Ranked:
        """Return a candidate under its final score, with the parts that count here."""
        word = self._words.get(target_id)
        return Ranked(
            target_id,
            score,
            self._vectors.get(target_id, 0.0),
            self._lexicals.get(target_id, 0.0),
            self._weight,
            self._cosines.get(target_id),
            word.bm25 if word is not None else 0.0,
        )


def best_of(scores: Iterable[tuple[UUID, float]], most: int | None = None) -> list[tuple[UUID, float]]:
    """Return the greatest scores, all of them or `most`, greatest first; ties are broken by id, so the order is stable."""
    ordered = sorted(scores, key=lambda each: (-each[1], each[0].int))
    return ordered[:most]


def lexical_weight(words: Mapping[UUID, WordScore], weights: Weights = WEIGHTS) -> float:
    """Return the weight of the words in [0, weights.lexical]: where few of the query's words occur anywhere, they say little."""
    covered = min(1.0, max((score.coverage for score in words.values()), default=0.0))
    return weights.lexical * float(covered**weights.coverage_power)


def _spread(cosines: Mapping[UUID, float]) -> dict[UUID, float]:
    """Return each cosine's place in the range of them all, in [0, 1]."""
    if not cosines:
        return {}
    low, high = min(cosines.values()), max(cosines.values())
    if high <= low:
        return dict.fromkeys(cosines, 1.0)
    width = high - low
    return {target_id: (cosine - low) / width for target_id, cosine in cosines.items()}


def _relative(words: Mapping[UUID, WordScore]) -> dict[UUID, float]:
    """Return each BM25 as a share of the best."""
    best = max((score.bm25 for score in words.values()), default=0.0)
    return {target_id: score.bm25 / best if best > 0 else 0.0 for target_id, score in words.items()}


def recency(age_days: float) -> float:
    """Return 1 for now (or the future), halving every 30 days."""
    return float(0.5 ** (max(0.0, age_days) / RECENCY_HALF_LIFE_DAYS))


def weigh_in(score: float, recency_score: float, importance: float, recency_weight: float, importance_weight: float) -> float:
    """Return the mean of score, recency and importance under weights 1, recency_weight and importance_weight; in [0, 1]."""
    total = score + recency_weight * recency_score + importance_weight * importance
    return total / (1.0 + recency_weight + importance_weight)
