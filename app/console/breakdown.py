"""Where a result's score comes from, as shares of it that add up. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.search.fusion import WEIGHTS


@dataclass(frozen=True, slots=True)
class Part:
    """One ingredient of a score.

    Attributes:
        place: Its place among all ingredients, which gives it its colour.
        name: What it is called.
        meaning: What it says, in a sentence.
        value: The ingredient by itself, in [0, 1].
        weight: How much it counts.
        share: What it adds to the score, so that all parts add up to it.
    """

    place: int
    name: str
    meaning: str
    value: float
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A score and its parts: those that add something, in a fixed order.

    `cosine` and `bm25` are the raw measures, None where there is none; `reranked` is the mark of the cross-encoder, which then decides
    the score by itself and leaves the parts to say how the result became a candidate.
    """

    score: float
    parts: list[Part]
    cosine: float | None
    bm25: float | None
    reranked: float | None


def explain(score: float, parts: Mapping[str, Any]) -> Breakdown:
    """Return the breakdown of a result.

    Args:
        score: The result's own.
        parts: Its score_breakdown, as the search gives it.
    """
    lexical_weight = parts["lexical_weight"]
    ingredients = [
        ("Meaning", "how near its vector is to the query's, over the range of all candidates", parts["vector"], 1 - lexical_weight),
        ("Words", "how well it matches the query's words, beside the best match", parts["lexical"], lexical_weight),
        ("Neighbours", "how good the turns beside it are", parts["neighbour"], WEIGHTS.neighbour),
        ("Speaker", "the query names who said it", parts["speaker"], WEIGHTS.speaker),
        ("Session", "how good its conversation is beside the best one", parts["session"], WEIGHTS.session),
        ("Time", "it is of the time that the query speaks of", parts["period"], WEIGHTS.period),
    ]
    relevance = sum(value * weight for _, _, value, weight in ingredients)
    recency, importance = parts["recency_weight"], parts["importance_weight"]
    total = 1 + recency + importance
    # The search scales relevance so that the best result is at most 1; what it was scaled by follows from the score.
    left = score * total - recency * parts["recency"] - importance * parts["importance"]
    scale = left / relevance / total if relevance > 0 else 0.0
    shared = [(name, meaning, value, weight, value * weight * scale) for name, meaning, value, weight in ingredients]
    for name, meaning, value, weight in (
        ("Recency", "how new it is: 1 for now, halving every 30 days", parts["recency"], recency),
        ("Importance", "what importance it was given", parts["importance"], importance),
    ):
        shared.append((name, meaning, value, weight, value * weight / total))
    shares = [Part(place, *ingredient) for place, ingredient in enumerate(shared)]
    return Breakdown(score, [part for part in shares if part.share > 0], parts["cosine"], parts["bm25"], parts.get("reranked"))
