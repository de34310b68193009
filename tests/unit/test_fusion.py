"""The ranking formula: bounds, order, and what each arm may and may not do to the other."""

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.fusion import WEIGHTS, Fusion, WordScore, lexical_weight, recency, weigh_in

IDS = [UUID(int=n) for n in range(1, 12)]
COSINES = st.dictionaries(st.sampled_from(IDS), st.floats(-1, 1), max_size=11)
WORDS = st.dictionaries(st.sampled_from(IDS), st.builds(WordScore, bm25=st.floats(0.001, 100), coverage=st.floats(0, 1)), max_size=11)


@given(COSINES, WORDS, st.booleans(), st.booleans())
def test_scores_lie_between_0_and_1_best_first_each_once(
    cosines: dict[UUID, float], words: dict[UUID, WordScore], use_vector: bool, use_words: bool
) -> None:
    ranked = Fusion(cosines, words, use_vector=use_vector, use_words=use_words).best()
    scores = [candidate.score for candidate in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)
    expected = (set(cosines) if use_vector else set()) | (set(words) if use_words else set())
    assert [candidate.target_id for candidate in ranked] == list(dict.fromkeys(candidate.target_id for candidate in ranked))
    assert {candidate.target_id for candidate in ranked} == expected


@given(COSINES, WORDS, st.integers(0, 12))
def test_the_best_of_some_are_the_first_of_all(cosines: dict[UUID, float], words: dict[UUID, WordScore], most: int) -> None:
    fusion = Fusion(cosines, words)
    assert fusion.best(most) == fusion.best()[:most]


@given(COSINES)
def test_meaning_alone_ranks_by_cosine(cosines: dict[UUID, float]) -> None:
    ranked = Fusion(cosines, {}, use_vector=True, use_words=False).best()
    found = [candidate.cosine for candidate in ranked]
    assert all(a is not None and b is not None and (a >= b or a == pytest.approx(b)) for a, b in pairwise(found))


@given(COSINES, WORDS)
def test_words_alone_rank_by_bm25(cosines: dict[UUID, float], words: dict[UUID, WordScore]) -> None:
    ranked = Fusion(cosines, words, use_vector=False, use_words=True).best()
    assert [candidate.bm25 for candidate in ranked] == sorted((score.bm25 for score in words.values()), reverse=True)
    assert not ranked or ranked[0].score == pytest.approx(1.0)


def test_ties_are_broken_by_id() -> None:
    ranked = Fusion(dict.fromkeys(reversed(IDS), 0.5), {}, use_vector=True, use_words=False).best()
    assert [candidate.target_id for candidate in ranked] == sorted(IDS, key=str)


def test_words_that_occur_nowhere_leave_the_order_to_meaning() -> None:
    cosines = {IDS[0]: 0.9, IDS[1]: 0.1}
    words = {IDS[1]: WordScore(bm25=3.0, coverage=0.25)}
    assert Fusion(cosines, words, use_vector=True, use_words=True).best()[0].target_id == IDS[0]
    assert lexical_weight(words) == pytest.approx(WEIGHTS.lexical * 0.5)
    assert lexical_weight({}) == 0


def test_episode_without_a_vector_yet_is_ranked_by_its_words() -> None:
    cosines = {IDS[0]: 0.2, IDS[1]: 0.1}
    ranked = Fusion(cosines, {IDS[2]: WordScore(5.0, 1.0)}, use_vector=True, use_words=True).best()
    new = next(candidate for candidate in ranked if candidate.target_id == IDS[2])
    assert (new.cosine, new.vector, new.lexical) == (None, 0.0, 1.0)
    assert new.score == pytest.approx(WEIGHTS.lexical)


def test_nothing_found_is_an_empty_ranking() -> None:
    assert Fusion({}, {}, use_vector=True, use_words=True).best() == []


def test_recency_halves_every_thirty_days_and_takes_the_future_for_now() -> None:
    assert [recency(days) for days in (-5, 0, 30, 60)] == pytest.approx([1, 1, 0.5, 0.25])


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 10), st.floats(0, 10))
def test_weighing_in_stays_within_bounds(score: float, recent: float, importance: float, weight: float, other: float) -> None:
    assert -1e-9 <= weigh_in(score, recent, importance, weight, other) <= 1 + 1e-9
    assert weigh_in(score, recent, importance, 0, 0) == score
