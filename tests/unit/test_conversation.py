"""What a conversation adds to the ranking: bounds, nothing where there is none, and each ingredient by itself."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.conversation import Question, Turn, rank_turns
from app.search.fusion import WEIGHTS, Fusion, Ranked, WordScore
from app.search.temporal import Mention

IDS = [UUID(int=n) for n in range(1, 9)]
ID = st.sampled_from(IDS)
COSINES = st.dictionaries(ID, st.floats(-1, 1), max_size=8)
WORDS = st.dictionaries(ID, st.builds(WordScore, bm25=st.floats(0.001, 100), coverage=st.floats(0, 1)), max_size=8)
TURNS = st.dictionaries(
    ID,
    st.builds(
        Turn,
        session_id=st.sampled_from([None, "s", "t"]),
        actor=st.sampled_from([None, "Ann", "Bo"]),
        occurred_at=st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
        previous=st.none() | ID,
        following=st.none() | ID,
    ),
    max_size=8,
)


MAY = datetime(2023, 5, 8, 13, tzinfo=UTC)


def turn_of(
    session: str | None, actor: str | None = None, previous: UUID | None = None, following: UUID | None = None, at: datetime = MAY
) -> Turn:
    return Turn(session, actor, at, previous, following)


def in_a_row(*actors: str, session: str = "s") -> dict[UUID, Turn]:
    """Return a session of one turn each."""
    ids = IDS[: len(actors)]
    return {
        turn: turn_of(session, actor, ids[n - 1] if n else None, ids[n + 1] if n + 1 < len(ids) else None)
        for n, (turn, actor) in enumerate(zip(ids, actors, strict=True))
    }


def scores(ranked: list[Ranked]) -> dict[UUID, float]:
    return {each.target_id: each.score for each in ranked}


@given(COSINES, WORDS, TURNS, st.sets(ID))
def test_scores_lie_between_0_and_1_best_first_and_only_what_may_be_returned(
    cosines: dict[UUID, float], words: dict[UUID, WordScore], turns: dict[UUID, Turn], eligible: set[UUID]
) -> None:
    ranked = rank_turns(Question("what did Ann say?"), cosines, words, turns, eligible)
    found = [each.score for each in ranked]
    assert found == sorted(found, reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in found)
    assert rank_turns(Question("what did Ann say?"), cosines, words, turns, eligible, most=3) == ranked[:3]
    # Also a turn that has no vector yet and none of the words, right after one that has some.
    after = {target_id for target_id, turn in turns.items() if turn.previous in words}
    assert {each.target_id for each in ranked} == (set(cosines) | set(words) | after) & eligible
    # What is shown is the episode's own.
    assert all(each.cosine == cosines.get(each.target_id) for each in ranked)
    assert all(each.bm25 == (words[each.target_id].bm25 if each.target_id in words else 0.0) for each in ranked)


@given(COSINES, WORDS)
def test_without_turns_the_order_is_that_of_meaning_and_words(cosines: dict[UUID, float], words: dict[UUID, WordScore]) -> None:
    ranked = rank_turns(Question("a question"), cosines, words, {}, IDS)
    assert scores(ranked) == pytest.approx(scores(Fusion(cosines, words, use_vector=True, use_words=True).best()))


def test_answer_is_found_beside_its_question() -> None:
    cosines = {IDS[0]: 0.9, IDS[1]: 0.2, IDS[2]: 0.1, IDS[3]: 0.3, IDS[4]: 0.0}
    turns = {IDS[0]: turn_of("s", following=IDS[1]), IDS[1]: turn_of("s", previous=IDS[0]), IDS[3]: turn_of("t")}
    order = [each.target_id for each in rank_turns(Question("?"), cosines, {}, turns, IDS)]
    assert order[:2] == [IDS[0], IDS[1]], "the turn after the best one comes second, though another is a little nearer"


def test_words_of_the_question_count_for_the_turn_after_it() -> None:
    words = {IDS[0]: WordScore(10.0, 1.0)}
    cosines = dict.fromkeys(IDS[:3], 0.5)
    ranked = {each.target_id: each for each in rank_turns(Question("?"), cosines, words, in_a_row("Ann", "Bo"), IDS)}
    assert ranked[IDS[1]].lexical == pytest.approx(WEIGHTS.previous)
    assert (ranked[IDS[1]].bm25, ranked[IDS[2]].lexical) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("query", "speakers"),
    [
        ("What did Bo paint?", {"Bo"}),
        ("what did BO's sister say", {"Bo"}),
        ("a boat and annals", set()),
        ("Ann and Bo", {"Ann", "Bo"}),
        ("", set()),
    ],
)
def test_speaker_who_is_named_is_preferred(query: str, speakers: set[str]) -> None:
    turns = in_a_row("Ann", "Bo", "Ann")
    ranked = rank_turns(Question(query), dict.fromkeys(IDS[:3], 0.5), {}, turns, IDS)
    assert {turns[each.target_id].actor for each in ranked if each.speaker} == speakers


def test_actor_that_is_no_word_is_no_pattern() -> None:
    turns = in_a_row(".*", "a(b", "[")
    assert not any(each.speaker for each in rank_turns(Question("anything"), dict.fromkeys(IDS[:3], 0.5), {}, turns, IDS))


def test_turn_of_a_session_that_is_about_it_is_preferred() -> None:
    cosines = {IDS[0]: 0.8, IDS[1]: 0.8, IDS[2]: 0.4, IDS[3]: 0.4, IDS[4]: 0.0}
    turns = {each: turn_of("about it") for each in IDS[:3]} | {IDS[3]: turn_of("other")}
    ranked = {each.target_id: each for each in rank_turns(Question("?"), cosines, {}, turns, IDS)}
    assert ranked[IDS[2]].session == 1.0
    assert 0 < ranked[IDS[3]].session < 0.5
    assert ranked[IDS[2]].score > ranked[IDS[3]].score


def test_neighbour_that_may_not_be_returned_testifies() -> None:
    cosines = {IDS[0]: 0.9, IDS[1]: 0.2, IDS[2]: 0.25, IDS[3]: 0.0}
    ranked = rank_turns(Question("?"), cosines, {}, in_a_row("Ann", "Bo"), {IDS[1], IDS[2]})
    assert [each.target_id for each in ranked] == [IDS[1], IDS[2]]
    assert ranked[0].neighbour > 0.9


def test_what_was_said_in_the_time_that_is_asked_about_is_preferred() -> None:
    turns = {IDS[0]: turn_of("s", at=MAY.replace(year=2022)), IDS[1]: turn_of("t")}
    ranked = rank_turns(Question("?", [Mention(2023, 5)]), {IDS[0]: 0.5, IDS[1]: 0.45, IDS[2]: 0.0}, {}, turns, IDS)
    assert [(each.target_id, each.period) for each in ranked[:2]] == [(IDS[1], 1.0), (IDS[0], 0.0)]
