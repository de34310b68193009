"""One search over episodes, semantic and working memories: each kind found by what it has, and none of another agent's."""

from typing import Any

import pytest

from app.bootstrap import Services
from app.episodes.models import EpisodeFilters
from app.search.query import SearchHit, SearchQuery
from app.semantic.models import NewSemanticMemory
from app.working.models import NewContext
from tests.factories.episodes import new_episode
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

ALL = ("episodic", "semantic", "working")


def find(services: Services, query: str, agent_id: str = "alice", **how: Any) -> list[SearchHit]:
    return services.search.search(agent_id, SearchQuery(query, **{"memory_types": ALL} | how)).results


def kinds(hits: list[SearchHit]) -> list[str]:
    return [hit.memory_type for hit in hits]


@pytest.fixture
def filled(services: Services, workshop: Workshop) -> Services:
    """An agent with one memory of each kind about a lighthouse, one of each about something else, and another agent with the like."""
    for agent_id in ("alice", "bob"):
        services.episodes.store(agent_id, new_episode(f"{agent_id} painted the lighthouse green"))
        services.episodes.store(agent_id, new_episode("soup for dinner"))
        services.semantic.store(agent_id, NewSemanticMemory("lighthouse", f"a tower by the sea that {agent_id} keeps"))
        services.semantic.store(agent_id, NewSemanticMemory("soup", "food that is eaten with a spoon"))
        services.working.put(agent_id, "lamp", NewContext({"todo": "clean the lighthouse lamp", "of": agent_id}, 600, session_id="s"))
        services.working.put(agent_id, "pot", NewContext({"todo": "find the pot"}, 600))
    workshop.drain()
    return services


def test_each_kind_is_found_when_asked_for(filled: Services) -> None:
    for mode in ("hybrid", "keyword"):
        hits = [hit for hit in find(filled, "lighthouse", mode=mode) if "lighthouse" in hit.content or "tower" in hit.content]
        assert sorted(kinds(hits)) == ["episodic", "semantic", "working"]
        assert {hit.agent_id for hit in hits} == {"alice"}
        assert not any("bob" in hit.content for hit in find(filled, "lighthouse", mode=mode))
    assert kinds(find(filled, "lighthouse", mode="keyword", memory_types=("semantic",))) == ["semantic"]
    assert kinds(find(filled, "lighthouse", mode="keyword", memory_types=("working",))) == ["working"]
    assert kinds(find(filled, "lighthouse", mode="keyword", memory_types=("episodic",))) == ["episodic"]


def test_meaning_finds_semantic_memories_and_never_working_ones(filled: Services) -> None:
    hits = find(filled, "tower by the sea", mode="vector")
    assert (hits[0].memory_type, hits[0].metadata["concept"]) == ("semantic", "lighthouse")
    assert "working" not in kinds(hits)
    assert find(filled, "lamp", mode="vector", memory_types=("working",)) == []


def test_scores_are_in_order_and_explained(filled: Services) -> None:
    hits = find(filled, "the lighthouse lamp tower", recency_weight=0.3, importance_weight=0.2)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    for hit in hits:
        assert {"vector", "cosine", "lexical", "bm25", "lexical_weight", "recency", "importance"} <= hit.score_breakdown.keys()


def test_kind_that_lacks_what_a_filter_asks_for_does_not_meet_it(filled: Services) -> None:
    session = EpisodeFilters(session_id="s")
    assert kinds(find(filled, "lighthouse", mode="keyword", filters=session)) == ["working"]
    assert kinds(find(filled, "lighthouse", mode="keyword", filters=EpisodeFilters(session_id="other"))) == []
    assert kinds(find(filled, "lighthouse", mode="keyword", filters=EpisodeFilters(min_importance=0.1))) == ["episodic"]


def test_expired_and_deleted_memories_are_not_found(filled: Services, sql: Sql) -> None:
    sql("UPDATE nexus_memory.working_memory_contexts SET expires_at = now() - interval '1 second'")
    (memory,) = find(filled, "lighthouse", mode="keyword", memory_types=("semantic",))
    filled.semantic.delete("alice", filled.semantic.list_page("alice", 10, concept="lighthouse")[0][0].memory_id)
    assert memory.memory_type == "semantic"
    assert kinds(find(filled, "lighthouse", mode="keyword")) == ["episodic"]
    assert (
        kinds(find(filled, "tower by the sea", mode="vector"))[0:1] != ["semantic"]
        or "tower" not in find(filled, "tower by the sea", mode="vector")[0].content
    )


def test_changed_semantic_memory_is_found_by_its_new_words_only(filled: Services, workshop: Workshop) -> None:
    (view,) = filled.semantic.list_page("alice", 10, concept="lighthouse")[0]
    filled.semantic.change("alice", view.memory_id, {"definition": "a ruin overgrown with ivy"})
    # Before its vector is back it has words and no vector: the stale one is gone.
    assert not any(hit.id == str(view.memory_id) for hit in find(filled, "tower by the sea", mode="vector"))
    workshop.drain()
    assert find(filled, "ruin with ivy", mode="vector")[0].id == str(view.memory_id)
    assert find(filled, "tower", mode="keyword") == []


def test_many_semantic_memories_are_searched_through_the_index_as_by_exact_scan(services: Services, workshop: Workshop, sql: Sql) -> None:
    for number in range(60):
        services.semantic.store("alice", NewSemanticMemory(f"word{number % 7} thing{number}", f"item{number} about topic{number % 5}"))
    workshop.drain()
    sql("SELECT set_config('app.current_agent_id', 'alice', false)")
    vector = "SELECT embedding FROM nexus_memory.semantic_memories WHERE concept = 'word3 thing17'"
    call = f"SELECT DISTINCT memory_id FROM nexus_memory.search_semantic_by_vector(({vector}), %s::smallint, 10, %s) ORDER BY 1"
    exact, through_index = sql(call, 1, 1_000_000), sql(call, 1, 1)
    assert len(exact) == 10
    assert len(set(exact) & set(through_index)) >= 9
    assert sql(call, 2, 1_000_000) == []
