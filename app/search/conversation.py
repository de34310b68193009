"""What the conversation around an episode says of it: pure functions over scores and over the turns' order and times.

An answer rarely repeats the words of its question, so a turn is judged together with the one before it, and gains from what its
neighbours, its session, its speaker and its time have to do with the query. Where the query names no speaker and no time, and there is
no session, nothing changes.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from app.search.fusion import WEIGHTS, Fusion, Ranked, Weights, WordScore, best_of
from app.search.temporal import Period, in_any

_SESSION_TURNS = 3
"""A session is judged by its best turns: a long one is not better for having more."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An episode's place in its conversation; `previous` and `following` are the turns beside it in its session."""

    session_id: str | None
    actor: str | None
    occurred_at: datetime
    previous: UUID | None
    following: UUID | None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the times that it speaks of."""

    text: str
    periods: Sequence[Period] = ()


def rank_turns(
    question: Question,
    cosines: Mapping[UUID, float],
    words: Mapping[UUID, WordScore],
    turns: Mapping[UUID, Turn],
    eligible: Collection[UUID],
    *,
    weights: Weights = WEIGHTS,
    most: int | None = None,
) -> list[Ranked]:
    """Return the eligible candidates by meaning, words and conversation, best first, all or `most` of them; scores are in [0, 1].

    Args:
        question: A speaker whose name is in it is asked about.
        cosines: Raw cosine by memory, also of turns that are no candidates but stand beside one.
        words: Word score by memory.
        turns: The places of the best candidates and of the turns beside them; one that is absent is judged by itself.
        eligible: What may be returned.
        weights: How much each ingredient counts.
        most: How many are returned; None for all.
    """
    meanings, wordings = _with_previous_cosine(cosines, turns, weights.previous), _with_previous_words(words, turns, weights.previous)
    fusion = Fusion(meanings, wordings, weights=weights)
    totals = dict(fusion.scores)
    gains = _gains(question, fusion.scores, turns)
    for target_id, gain in gains.items():
        totals[target_id] += weights.neighbour * gain.neighbour + weights.speaker * gain.speaker + weights.period * gain.period
    sessions = _sessions(totals, turns)
    for target_id, gain in gains.items():
        totals[target_id] += weights.session * sessions.get(gain.session_id, 0.0)
    best = max(1.0, max(totals.values(), default=1.0))
    return [
        _with_gain(fusion.explain(target_id, total / best), gains.get(target_id), sessions)._replace(
            # What is shown is the episode's own; what it was ranked by has the turn before in it.
            cosine=cosines.get(target_id),
            bm25=words[target_id].bm25 if target_id in words else 0.0,
        )
        for target_id, total in best_of(((each, total) for each, total in totals.items() if each in eligible), most)
    ]


class _Gain(NamedTuple):
    """What a candidate's conversation says for it, before the weights."""

    neighbour: float
    speaker: float
    period: float
    session_id: str | None


def _gains(question: Question, scores: Mapping[UUID, float], turns: Mapping[UUID, Turn]) -> dict[UUID, _Gain]:
    asked_about = _named_in(question.text, {turn.actor for turn in turns.values() if turn.actor})
    return {
        target_id: _Gain(
            max((scores.get(beside, 0.0) for beside in (turn.previous, turn.following) if beside is not None), default=0.0),
            float(turn.actor in asked_about),
            float(in_any(question.periods, turn.occurred_at)),
            turn.session_id,
        )
        for target_id, turn in turns.items()
        if target_id in scores
    }


def _with_gain(candidate: Ranked, gain: _Gain | None, sessions: Mapping[str | None, float]) -> Ranked:
    if gain is None:
        return candidate
    session = sessions.get(gain.session_id, 0.0)
    return candidate._replace(neighbour=gain.neighbour, speaker=gain.speaker, period=gain.period, session=session)


def _with_previous_cosine(cosines: Mapping[UUID, float], turns: Mapping[UUID, Turn], weight: float) -> dict[UUID, float]:
    mixed = dict(cosines)
    for target_id, turn in turns.items():
        if target_id in cosines and turn.previous is not None and turn.previous in cosines:
            mixed[target_id] = (cosines[target_id] + weight * cosines[turn.previous]) / (1 + weight)
    return mixed


def _with_previous_words(words: Mapping[UUID, WordScore], turns: Mapping[UUID, Turn], weight: float) -> dict[UUID, WordScore]:
    mixed = dict(words)
    for target_id, turn in turns.items():
        if turn.previous is not None and turn.previous in words:
            own = words.get(target_id, WordScore(0.0, 0.0))
            mixed[target_id] = WordScore(own.bm25 + weight * words[turn.previous].bm25, own.coverage)
    return mixed


def _named_in(query: str, actors: Iterable[str]) -> set[str]:
    """Return the actors whose name is in the query as words of their own, in any case."""
    return {actor for actor in actors if re.search(rf"(?<!\w){re.escape(actor)}(?!\w)", query, re.IGNORECASE)}


def _sessions(scores: Mapping[UUID, float], turns: Mapping[UUID, Turn]) -> dict[str | None, float]:
    """Return how good each session is, the best 1."""
    of_each: defaultdict[str | None, list[float]] = defaultdict(list)
    for target_id, turn in turns.items():
        if turn.session_id is not None and target_id in scores:
            of_each[turn.session_id].append(scores[target_id])
    means = {session: sum(sorted(of_session)[-_SESSION_TURNS:]) / _SESSION_TURNS for session, of_session in of_each.items()}
    best = max(means.values(), default=0.0)
    return {session: mean / best for session, mean in means.items()} if best > 0 else {}
