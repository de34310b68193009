"""Search looks at the conversation around what it found: over real PostgreSQL, within the agent and its filters."""

import random
from datetime import UTC, datetime, timedelta

from app.bootstrap import Services
from app.episodes.models import EpisodeFilters
from app.search.query import SearchQuery
from tests.factories.episodes import new_episode
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


def talk(services: Services, session: str, *turns: tuple[str, str], agent_id: str = "alice") -> list[str]:
    """Store the turns of a conversation, a minute apart, and return their ids."""
    start = datetime(2026, 5, 1, tzinfo=UTC)
    episodes = [
        new_episode(content, actor=actor, session_id=session, occurred_at=start + timedelta(minutes=n))
        for n, (actor, content) in enumerate(turns)
    ]
    return [str(receipt.episode_id) for receipt in services.episodes.store_many(agent_id, episodes)]


def test_answer_that_shares_no_word_with_the_query_is_found_beside_its_question(services: Services, workshop: Workshop) -> None:
    talk(services, "chat", ("Ann", "Where did the lighthouse keeper move?"), ("Bo", "To Lisbon, last spring."))
    talk(services, "other", ("Ann", "Shall we eat?"), ("Bo", "Later, perhaps."))
    workshop.drain()
    hits = services.search.search("alice", SearchQuery("where did the lighthouse keeper move", limit=4)).results
    assert [hit.content for hit in hits[:2]] == ["Where did the lighthouse keeper move?", "To Lisbon, last spring."]
    assert hits[1].score_breakdown["neighbour"] == 1.0
    assert hits[1].score_breakdown["lexical"] > 0 == hits[1].score_breakdown["bm25"]


def test_neighbour_that_does_not_pass_the_filter_is_not_returned(services: Services, workshop: Workshop) -> None:
    talk(services, "chat", ("Ann", "Where did the lighthouse keeper move?"), ("Bo", "To Lisbon, last spring."))
    workshop.drain()
    query = SearchQuery("where did the lighthouse keeper move", filters=EpisodeFilters(actor="Bo"))
    hits = services.search.search("alice", query).results
    assert [hit.actor for hit in hits] == ["Bo"]


def test_conversations_of_other_agents_are_not_looked_at(services: Services, workshop: Workshop, sql: Sql) -> None:
    ours = talk(services, "chat", ("Ann", "one"), ("Bo", "two"), ("Ann", "three"))
    theirs = talk(services, "chat", ("Ann", "four"), ("Bo", "five"), agent_id="bob")
    sql("SELECT set_config('app.current_agent_id', 'alice', false)")
    turns = "SELECT episode_id::text, previous_id::text, following_id::text FROM nexus_memory.turns_of(%s::uuid[]) ORDER BY 1"
    assert {row[0]: row[1:] for row in sql(turns, [ours[0], *theirs])} == {ours[0]: (None, ours[1]), ours[1]: (ours[0], ours[2])}


def test_turns_and_their_neighbours_are_those_of_the_sessions_order(services: Services, sql: Sql) -> None:
    """Sessions that are interleaved, times that repeat and run backward, turns without a session, any subset asked for."""
    chance = random.Random(4)
    start = datetime(2026, 5, 1, tzinfo=UTC)
    told = [(chance.choice(["s", "t", "u", None]), chance.randrange(12)) for _ in range(60)]
    episodes = [
        new_episode(f"turn {n}", session_id=session, occurred_at=start + timedelta(days=day)) for n, (session, day) in enumerate(told)
    ]
    ids = [str(receipt.episode_id) for receipt in services.episodes.store_many("alice", episodes)]
    places: dict[str, tuple[str | None, str | None]] = {ids[n]: (None, None) for n, (session, _) in enumerate(told) if session is None}
    for session in ("s", "t", "u"):
        row = [ids[n] for _, n in sorted((day, n) for n, (of, day) in enumerate(told) if of == session)]
        places |= {each: place for each, *place in zip(row, [None, *row], [*row[1:], None], strict=False)}  # type: ignore[misc]
    sql("SELECT set_config('app.current_agent_id', 'alice', false)")
    for size in (1, 3, 10, 60):
        asked = chance.sample(ids, size)
        found = sql("SELECT episode_id::text, previous_id::text, following_id::text FROM nexus_memory.turns_of(%s::uuid[])", asked)
        wanted = {each for one in asked for each in (one, *places[one]) if each is not None}
        assert {row[0]: list(row[1:]) for row in found} == {each: list(places[each]) for each in wanted}
        assert len(found) == len(wanted), "a turn came twice"


def test_turns_are_found_through_the_index_of_sessions(services: Services, sql: Sql) -> None:
    ids = talk(services, "long", *(("Ann", f"turn {n}") for n in range(500)))
    sql("ANALYZE nexus_memory.zep_episodic_memory")
    before = sql.one("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'ix_zep_episodic_memory_session'")
    sql("SELECT set_config('app.current_agent_id', 'alice', false)")
    assert len(sql("SELECT * FROM nexus_memory.turns_of(%s::uuid[])", ids[100:150:10])) == 15
    sql("SELECT pg_stat_force_next_flush()")
    after = sql.one("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'ix_zep_episodic_memory_session'")
    assert after > before
