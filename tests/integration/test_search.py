"""Search over real PostgreSQL: words at once, meaning when embedded, filters, order, and no query that breaks it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import text

from app.bootstrap import Services
from app.embedding.models import EmbeddingModel
from app.episodes.models import EpisodeFilters, NewEpisode
from app.errors import EncoderUnavailable
from app.search.encoding import QueryEncoder
from app.search.query import SearchHit, SearchMode, SearchQuery
from app.search.service import SearchService
from tests.factories.episodes import edit, new_episode
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

MODES: tuple[SearchMode, ...] = ("hybrid", "vector", "keyword")
DAY = datetime(2026, 3, 1, tzinfo=UTC)

INJECTIONS = [
    "'; DROP TABLE nexus_memory.zep_episodic_memory; --",
    "' OR '1'='1",
    "\\'; SELECT pg_sleep(5); --",
    "%s %(name)s {0} {name} $1 :x ::text",
    "a & b | !c <-> d:* (",
    "foo'bar\"baz\\qux\\",
    "$$ $query$ $predicate$",
    "' || pg_read_file('/etc/passwd') || '",
    "%_*?[]^",
    "\u202e\u0000".replace("\u0000", ""),
    "<script>alert(1)</script>",
    "null NULL NaN undefined",
    "-- /* */ ;",
    "\U0001f389\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "ǅ ß ﬁ İ ı \u0130\u0307",
    "'''''''''",
    "\\",
    "&",
    "!",
    ":*",
    "()",
    "a" * 5000,
    "日本語の文章",
    "e\u0301 \u00e9",
]


@pytest.fixture
def store(services: Services, workshop: Workshop) -> Callable[..., list[Any]]:
    """Store alice's episodes, embed them, and return their ids."""

    def stored(*episodes: NewEpisode | str, agent_id: str = "alice", embedded: bool = True) -> list[Any]:
        made = [episode if isinstance(episode, NewEpisode) else new_episode(episode) for episode in episodes]
        receipts = services.episodes.store_many(agent_id, made)
        if embedded:
            workshop.drain()
        return [receipt.episode_id for receipt in receipts]

    return stored


def find(services: Services, query: str, agent_id: str = "alice", **how: Any) -> list[SearchHit]:
    return services.search.search(agent_id, SearchQuery(query, **how)).results


def test_words_are_found_when_the_store_returns(services: Services, store: Callable[..., list[Any]]) -> None:
    (episode_id,) = store("the lighthouse keeper painted the door green", embedded=False)
    answer = services.search.search("alice", SearchQuery("who painted the lighthouse"))
    assert [hit.episode_id for hit in answer.results] == [episode_id]
    assert answer.pending_embeddings == 1
    hit = answer.results[0]
    assert (hit.embedding_state, hit.score_breakdown["cosine"], hit.memory_type, hit.id) == ("pending", None, "episodic", str(episode_id))
    assert find(services, "lighthouse", mode="vector") == []


def test_vector_joins_when_it_is_ready(services: Services, store: Callable[..., list[Any]]) -> None:
    near, far = store("green door of the lighthouse", "quarterly tax report")
    answer = services.search.search("alice", SearchQuery("lighthouse door", mode="vector"))
    assert answer.pending_embeddings == 0
    assert [hit.episode_id for hit in answer.results] == [near, far]
    assert answer.results[0].embedding_state == "done"


def test_text_of_stop_words_only_is_found(services: Services, store: Callable[..., list[Any]]) -> None:
    store("something different entirely", embedded=False)
    for content in ("to be or not to be", "the who", "y si no", "a"):
        (episode_id,) = store(content, embedded=False)
        assert find(services, content, mode="keyword")[0].episode_id == episode_id, content


FORMS = [
    ("the cats were running", "cat runs", "en"),
    ("los camiones llegaron tarde", "camión llegó", "es"),
    ("ticket ABC-1234 was closed", "abc-1234", "en"),
    ("see https://example.org/path?q=1", "example.org", "en"),
    ("error in app/queue/service.py", "app/queue/service.py", "en"),
    ("the price is 42.50 euros", "42.50", "en"),
    ("naïve café", "café", "en"),
    ("Straße", "straße", "simple"),
    ("user_name is wrong", "user_name", "en"),
    ("ping alice@example.org", "alice@example.org", "en"),
]


def test_words_are_found_in_their_forms(services: Services, store: Callable[..., list[Any]]) -> None:
    for number, (stored, query, language) in enumerate(FORMS):
        agent_id = f"agent{number}"
        (episode_id,) = store(new_episode(stored, language=language), agent_id=agent_id, embedded=False)
        assert [hit.episode_id for hit in find(services, query, agent_id, mode="keyword")] == [episode_id], query


def test_actor_is_among_the_words(services: Services, store: Callable[..., list[Any]]) -> None:
    (episode_id, _) = store(new_episode("we ship on friday", actor="Marguerite"), "we ship on monday")
    assert find(services, "marguerite", mode="keyword")[0].episode_id == episode_id
    assert find(services, "what did marguerite say", mode="vector")[0].episode_id == episode_id


FILTERED: dict[str, tuple[EpisodeFilters, set[str]]] = {
    "tags_any": (EpisodeFilters(tags_any=("red", "none")), {"a", "b"}),
    "tags_all": (EpisodeFilters(tags_all=("red", "big")), {"a"}),
    "tags_both": (EpisodeFilters(tags_any=("blue", "red"), tags_all=("big",)), {"a", "c"}),
    "session_id": (EpisodeFilters(session_id="s1"), {"a", "c"}),
    "actor": (EpisodeFilters(actor="carol"), {"b"}),
    "action_type": (EpisodeFilters(action_type="deploy"), {"c"}),
    "project": (EpisodeFilters(project="apollo"), {"a"}),
    "unknown project": (EpisodeFilters(project="gemini"), set()),
    "occurred_after": (EpisodeFilters(occurred_after=DAY + timedelta(days=1)), {"b", "c"}),
    "occurred_before": (EpisodeFilters(occurred_before=DAY + timedelta(days=1)), {"a"}),
    "between, other zone": (
        EpisodeFilters(
            occurred_after=datetime.fromisoformat("2026-03-02T02:00:00+02:00"),
            occurred_before=datetime.fromisoformat("2026-03-02T23:00:00-01:00"),
        ),
        {"b"},
    ),
    "min_importance": (EpisodeFilters(min_importance=0.5), {"b", "c"}),
    "min_importance zero": (EpisodeFilters(min_importance=0.0), {"a", "b", "c"}),
    "metadata": (EpisodeFilters(metadata={"team": "x"}), {"a", "b"}),
    "metadata deep": (EpisodeFilters(metadata={"team": "x", "deep": {"n": 2}}), {"b"}),
    "metadata empty": (EpisodeFilters(metadata={}), {"a", "b", "c"}),
    "tags_all empty": (EpisodeFilters(tags_all=()), {"a", "b", "c"}),
    "tags_any empty": (EpisodeFilters(tags_any=()), set()),
    "several": (EpisodeFilters(session_id="s1", tags_any=("big",), min_importance=0.6), {"c"}),
    "none at all": (EpisodeFilters(), {"a", "b", "c"}),
}


def test_every_result_passes_the_filter_and_none_is_left_out(services: Services, store: Callable[..., list[Any]]) -> None:
    common = "meeting about the roadmap"
    store(
        new_episode(f"{common} a", tags=("red", "big"), session_id="s1", project="apollo", importance_score=0.1, occurred_at=DAY,
                    metadata={"team": "x", "deep": {"n": 1}}),
        new_episode(f"{common} b", tags=("red",), actor="carol", importance_score=0.5, occurred_at=DAY + timedelta(days=1),
                    metadata={"team": "x", "deep": {"n": 2}}),
        new_episode(f"{common} c", tags=("blue", "big"), session_id="s1", action_type="deploy", importance_score=0.9,
                    occurred_at=DAY + timedelta(days=2)),
    )  # fmt: skip
    store(new_episode(f"{common} bob", tags=("red", "big"), session_id="s1", project="apollo"), agent_id="bob")
    for (name, (filters, expected)), mode in product(FILTERED.items(), MODES):
        found = {hit.content.rsplit(" ", 1)[1] for hit in find(services, "roadmap meeting", mode=mode, filters=filters)}
        assert found == expected, (name, mode)


def test_edited_episode_is_never_found_by_its_old_meaning(services: Services, workshop: Workshop, store: Callable[..., list[Any]]) -> None:
    (episode_id,) = store("badgers dig at night")
    edit(services.database, "alice", episode_id, "ships sail at noon")
    assert find(services, "badgers", mode="vector") == []
    assert find(services, "badgers", mode="keyword") == []
    assert find(services, "ships")[0].score_breakdown["cosine"] is None
    workshop.drain()
    assert find(services, "ships sail at noon", mode="vector")[0].score_breakdown["cosine"] > 0.99


def test_agents_never_see_each_other(services: Services, store: Callable[..., list[Any]]) -> None:
    for agent in ("alice", "bob"):
        store(f"the password of {agent} is long", agent_id=agent)
    for agent in ("alice", "bob"):
        for mode in MODES:
            hits = find(services, "password of alice and bob", agent, mode=mode)
            assert [(hit.agent_id, agent in hit.content) for hit in hits] == [(agent, True)]
    assert find(services, "password", "carol") == []


def test_min_score_applies_to_the_raw_cosine(services: Services, store: Callable[..., list[Any]]) -> None:
    store("alpha beta gamma", "alpha beta delta", "omega psi chi")
    cosines = [hit.score_breakdown["cosine"] for hit in find(services, "alpha beta gamma", mode="vector")]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] > 0.99
    kept = find(services, "alpha beta gamma", mode="vector", min_score=0.5)
    assert [hit.score_breakdown["cosine"] for hit in kept] == [cosine for cosine in cosines if cosine >= 0.5]
    assert 0 < len(kept) < 3
    assert find(services, "alpha beta gamma", mode="vector", min_score=1.1) == []


@pytest.mark.parametrize("mode", MODES)
def test_results_come_best_first_with_scores_within_bounds(mode: SearchMode, services: Services, store: Callable[..., list[Any]]) -> None:
    store(*(f"{'apple ' * (n % 5)}{'pear ' * (n % 3)}item {n}" for n in range(40)))
    choices: list[dict[str, Any]] = [{}, {"recency_weight": 1.0}, {"importance_weight": 2.0, "recency_weight": 0.5}]
    for weights in choices:
        hits = find(services, "apple pear", mode=mode, limit=30, **weights)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert len({hit.episode_id for hit in hits}) == len(hits)
        assert hits
        again = find(services, "apple pear", mode=mode, limit=30, **weights)
        assert [hit.episode_id for hit in again] == [hit.episode_id for hit in hits]


def test_limit_is_kept(services: Services, store: Callable[..., list[Any]]) -> None:
    store(*(f"apple number {n}" for n in range(120)))
    for mode in MODES:
        assert [len(find(services, "apple", mode=mode, limit=limit)) for limit in (1, 10, 100)] == [1, 10, 100]


def test_weights_of_recency_and_importance_change_the_order(services: Services, store: Callable[..., list[Any]]) -> None:
    now = datetime.now(UTC)
    old, new = store(
        new_episode("apple pie", occurred_at=now - timedelta(days=365), importance_score=1.0),
        new_episode("apple pie", occurred_at=now, importance_score=0.0),
    )
    assert find(services, "apple pie", recency_weight=1.0)[0].episode_id == new
    assert find(services, "apple pie", importance_weight=1.0)[0].episode_id == old


def test_no_query_breaks_the_search(services: Services, store: Callable[..., list[Any]], sql: Sql) -> None:
    store("an innocent episode")
    for query, mode in product(INJECTIONS, MODES):
        answer = services.search.search("alice", SearchQuery(query, mode=mode))
        assert len(answer.results) <= 1
    for query in INJECTIONS:
        for filters in _filters_of(query):
            assert find(services, "innocent", filters=filters) == [], (query, filters)
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory") == 1


def _filters_of(query: str) -> tuple[EpisodeFilters, ...]:
    return (
        EpisodeFilters(session_id=query, actor=query),
        EpisodeFilters(project=query),
        EpisodeFilters(tags_any=(query,)),
        EpisodeFilters(tags_all=(query, query)),
        EpisodeFilters(metadata={query: query}),
        EpisodeFilters(action_type=query),
    )


def test_filter_values_find_exactly_themselves(services: Services, store: Callable[..., list[Any]]) -> None:
    store("another innocent episode")
    for query in (query for query in INJECTIONS if len(query) <= 100):
        fields = {"tags": (query,), "session_id": query, "actor": query, "action_type": query, "project": query, "metadata": {query: query}}
        (episode_id,) = store(new_episode("an innocent episode", **fields))
        for filters in _filters_of(query):
            found = [hit.episode_id for hit in find(services, "innocent", filters=filters)]
            assert found == [episode_id], (query, filters)


def test_long_query_is_answered(services: Services, store: Callable[..., list[Any]]) -> None:
    (episode_id, _) = store("the last word of the question is zanzibar", "nothing to do with it")
    query = " ".join(f"word{n}" for n in range(999)) + " zanzibar"
    for mode in ("hybrid", "keyword"):
        assert find(services, query, mode=mode)[0].episode_id == episode_id


@pytest.mark.parametrize("mode", MODES)
def test_empty_agent_and_wordless_query_find_nothing(mode: SearchMode, services: Services) -> None:
    for query in ("anything", "🎉", "...", "?!"):
        answer = services.search.search("nobody", SearchQuery(query, mode=mode))
        assert (answer.results, answer.pending_embeddings) == ([], 0)


def test_last_part_of_a_long_episode_is_found(services: Services, store: Callable[..., list[Any]]) -> None:
    body = " ".join(f"paragraph {n} is about routine maintenance." for n in range(900))
    one, two = store(f"{body} The vault opens with a sapphire key.", f"{body} The garden needs a copper fence.")
    assert find(services, "sapphire key vault", mode="vector")[0].episode_id == one
    assert find(services, "copper fence garden", mode="vector")[0].episode_id == two
    assert find(services, "sapphire", mode="keyword")[0].episode_id == one


def test_rare_words_weigh_more_than_common_ones(services: Services, store: Callable[..., list[Any]]) -> None:
    *_, rare = store(*(f"status report number {n}" for n in range(30)), "the zeppelin landed")
    assert find(services, "status zeppelin", mode="keyword")[0].episode_id == rare


def test_without_a_model_words_still_find(services: Services, store: Callable[..., list[Any]]) -> None:
    (episode_id,) = store("the lighthouse", embedded=False)

    def never(_: EmbeddingModel) -> Any:
        raise EncoderUnavailable("still loading")

    encoder = QueryEncoder(never, lambda: None)
    search = SearchService(services.database, encoder)
    assert [hit.episode_id for hit in search.search("alice", SearchQuery("lighthouse", mode="keyword")).results] == [episode_id]
    with pytest.raises(EncoderUnavailable):
        encoder.models(patience_seconds=0.2)
    encoder.stop()


def test_vectors_of_another_model_are_not_compared(
    services: Services, workshop: Workshop, store: Callable[..., list[Any]], sql: Sql
) -> None:
    """While a model is changed, chunks of both lie in the table; a query meets only those of its own."""
    (episode_id,) = store("the lighthouse")
    sql("INSERT INTO memory_system.embedding_models VALUES (2, 'other', 'other@v1', 8, 'f', false)")
    sql(
        "INSERT INTO nexus_memory.episode_chunks (episode_id, model_id, chunk_no, agent_id, char_start, char_end, input_sha256, embedding,"
        " vector_sha256) SELECT episode_id, 2, 0, agent_id, 0, 1, input_sha256, '[1,0,0,0,0,0,0,0]', 'x' FROM nexus_memory.episode_chunks"
    )
    assert [hit.episode_id for hit in find(services, "lighthouse")] == [episode_id]
    statement = text("SELECT count(*) FROM nexus_memory.search_by_vector('[1,0,0,0,0,0,0,0]', 2::smallint, 10, '{}')")
    with services.database.transaction("alice") as connection:
        assert connection.execute(statement).scalar_one() == 1
