"""What the conversation around an episode says of it: pure functions over scores and over the turns' order and times.

An answer rarely repeats the words of its question, so a turn is judged together with the one before it, and gains from what its
neighbours, its session, its speaker and its time have to do with the query. Where the query names no speaker and no time, and there is
no session, nothing changes.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from app.search.fusion import WEIGHTS, Ranked, Weights, WordScore, fuse, in_order
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
) -> list[Ranked]:
    """Return the eligible candidates by meaning, words and conversation, best first; scores are in [0, 1].

    Args:
        question: A speaker whose name is in it is asked about.
        cosines: Raw cosine by memory, also of turns that are no candidates but stand beside one.
        words: Word score by memory.
        turns: The places of the best candidates and of the turns beside them; one that is absent is judged by itself.
        eligible: What may be returned.
        weights: How much each ingredient counts.
    """
    meanings, wordings = _with_previous_cosine(cosines, turns, weights.previous), _with_previous_words(words, turns, weights.previous)
    base = fuse(meanings, wordings, use_vector=True, use_words=True, weights=weights)
    alone = {candidate.target_id: candidate.score for candidate in base}
    asked_about = _named_in(question.text, {turn.actor for turn in turns.values() if turn.actor})
    totals: dict[UUID, Ranked] = {}
    for candidate in base:
        turn = turns.get(candidate.target_id)
        neighbour = max((alone.get(beside, 0.0) for beside in _beside(turn)), default=0.0)
        speaker = float(turn is not None and turn.actor in asked_about)
        period = float(turn is not None and in_any(question.periods, turn.occurred_at))
        score = candidate.score + weights.neighbour * neighbour + weights.speaker * speaker + weights.period * period
        totals[candidate.target_id] = replace(candidate, score=score, neighbour=neighbour, speaker=speaker, period=period)
    sessions = _sessions(totals, turns)
    found = []
    for target_id, candidate in totals.items():
        turn = turns.get(target_id)
        session = sessions.get(turn.session_id, 0.0) if turn is not None and turn.session_id is not None else 0.0
        word = words.get(target_id)
        found.append(
            replace(
                candidate,
                score=candidate.score + weights.session * session,
                session=session,
                # What is shown is the episode's own; what it was ranked by has the turn before in it.
                cosine=cosines.get(target_id),
                bm25=word.bm25 if word is not None else 0.0,
            )
        )
    best = max((candidate.score for candidate in found), default=0.0)
    return in_order(replace(each, score=each.score / max(1.0, best)) for each in found if each.target_id in eligible)


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


def _beside(turn: Turn | None) -> list[UUID]:
    return [] if turn is None else [beside for beside in (turn.previous, turn.following) if beside is not None]


def _named_in(query: str, actors: Iterable[str]) -> set[str]:
    """Return the actors whose name is in the query as words of their own, in any case."""
    return {actor for actor in actors if re.search(rf"(?<!\w){re.escape(actor)}(?!\w)", query, re.IGNORECASE)}


def _sessions(candidates: Mapping[UUID, Ranked], turns: Mapping[UUID, Turn]) -> dict[str, float]:
    """Return how good each session is, the best 1."""
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for target_id, turn in turns.items():
        if turn.session_id is not None and target_id in candidates:
            scores[turn.session_id].append(candidates[target_id].score)
    means = {session: sum(sorted(of_session)[-_SESSION_TURNS:]) / _SESSION_TURNS for session, of_session in scores.items()}
    best = max(means.values(), default=0.0)
    return {session: mean / best for session, mean in means.items()} if best > 0 else {}
