"""Listing, changing and deleting stored episodes over HTTP, with PostgreSQL behind it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import orjson
import pytest

from tests.api.conftest import Caller
from tests.factories.episodes import queue_row, vector_text
from tests.factories.statements import Sql

START = datetime(2026, 1, 1, tzinfo=UTC)


def store(caller: Caller, content: str, **fields: Any) -> dict[str, Any]:
    answer = caller.post("/memory/action", {"content": content} | fields)
    assert answer.status_code == 201, answer.get_json()
    receipt: dict[str, Any] = answer.get_json()
    return receipt


def pages(caller: Caller, **query: Any) -> list[list[str]]:
    """Return the contents of every page."""
    found: list[list[str]] = []
    cursor = None
    while True:
        text = urlencode(query | ({} if cursor is None else {"cursor": cursor}), doseq=True)
        answer = caller.get(f"/memory/episodic?{text}")
        assert answer.status_code == 200, answer.get_json()
        found.append([item["content"] for item in answer.get_json()["items"]])
        cursor = answer.get_json()["next_cursor"]
        if cursor is None:
            return found


def test_pages_hold_each_episode_once_in_order(alice: Caller) -> None:
    # Pairs of the same moment: seq settles their order.
    for number in range(7):
        store(alice, f"n{number}", occurred_at=(START + timedelta(hours=number // 2)).isoformat())
    newest = [f"n{number}" for number in reversed(range(7))]
    assert pages(alice, limit=3) == [newest[:3], newest[3:6], newest[6:]]
    assert pages(alice, limit=7) == [newest]
    assert pages(alice, limit=2, order="oldest") == [["n0", "n1"], ["n2", "n3"], ["n4", "n5"], ["n6"]]


def test_writes_between_pages_neither_repeat_nor_hide_what_was_there(alice: Caller) -> None:
    receipts = [store(alice, f"n{number}", occurred_at=(START + timedelta(hours=number)).isoformat()) for number in range(6)]
    first = alice.get("/memory/episodic?limit=2").get_json()
    store(alice, "later")
    assert alice.delete(f"/memory/episodic/{receipts[4]['episode_id']}").status_code == 200
    second = alice.get(f"/memory/episodic?limit=10&cursor={first['next_cursor']}").get_json()
    assert [item["content"] for item in second["items"]] == ["n3", "n2", "n1", "n0"]


NARROWED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "session": ({"session_id": "s1"}, {"a", "c"}),
    "actor": ({"actor": "carol"}, {"b"}),
    "type": ({"action_type": "deploy"}, {"c"}),
    "project": ({"project": "apollo"}, {"a"}),
    "unknown project": ({"project": "zeus"}, set()),
    "any tag": ({"tags_any": ["red", "none"]}, {"a", "b"}),
    "all tags": ({"tags_all": ["red", "big"]}, {"a"}),
    "from a moment on": ({"occurred_after": "2026-01-02T00:00:00Z"}, {"b", "c"}),
    "before a moment": ({"occurred_before": "2026-01-02T00:00:00Z"}, {"a"}),
    "importance": ({"min_importance": 0.7}, {"c"}),
    "metadata": ({"metadata": '{"k": {"n": 1}}'}, {"b"}),
    "two of them": ({"session_id": "s1", "tags_all": ["big"]}, {"a", "c"}),
}


@pytest.mark.parametrize("name", NARROWED)
def test_filters_narrow(name: str, alice: Caller) -> None:
    store(alice, "a", session_id="s1", tags=["red", "big"], project="apollo", occurred_at="2026-01-01T00:00:00Z")
    store(alice, "b", actor="carol", tags=["red"], metadata={"k": {"n": 1, "m": 2}}, occurred_at="2026-01-02T00:00:00Z")
    store(alice, "c", session_id="s1", action_type="deploy", tags=["big"], importance_score=0.9, occurred_at="2026-01-03T00:00:00Z")
    query, expected = NARROWED[name]
    assert {content for page in pages(alice, limit=1, **query) for content in page} == expected


def test_cursor_of_another_list_is_refused(alice: Caller, bob: Caller) -> None:
    for number in range(3):
        store(alice, f"n{number}", tags=["t"])
    cursor = alice.get("/memory/episodic?limit=1&tags_all=t").get_json()["next_cursor"]
    for changed in (f"cursor={cursor}", f"tags_all=t&order=oldest&cursor={cursor}", f"tags_any=t&cursor={cursor}"):
        answer = alice.get(f"/memory/episodic?{changed}")
        assert (answer.status_code, answer.get_json()["errors"][0]["code"]) == (422, "bad_cursor"), changed
    # Forged or taken from somebody else, it opens nobody's memory.
    assert bob.get(f"/memory/episodic?tags_all=t&cursor={cursor}").get_json() == {"items": [], "next_cursor": None}


def test_context_is_the_turns_of_the_session_around_an_episode(alice: Caller, bob: Caller) -> None:
    receipts = [
        store(alice, f"t{number}", session_id="s", occurred_at=(START + timedelta(minutes=number)).isoformat()) for number in range(6)
    ]
    store(alice, "elsewhere", session_id="other", occurred_at=(START + timedelta(minutes=2)).isoformat())
    store(bob, "of bob", session_id="s", occurred_at=(START + timedelta(minutes=2)).isoformat())
    context = alice.get(f"/memory/episodic/{receipts[3]['episode_id']}/context?before=2&after=1").get_json()
    assert [item["content"] for item in context["before"]] == ["t1", "t2"]
    assert context["episode"]["content"] == "t3"
    assert [item["content"] for item in context["after"]] == ["t4"]
    alone = store(alice, "alone")
    answer = alice.get(f"/memory/episodic/{alone['episode_id']}/context").get_json()
    assert (answer["before"], answer["episode"]["content"], answer["after"]) == ([], "alone", [])
    assert bob.get(f"/memory/episodic/{receipts[3]['episode_id']}/context").status_code == 404


def test_new_content_is_a_new_version_with_a_receipt_and_work(alice: Caller, drain: Callable[[], int], sql: Sql) -> None:
    first = store(alice, "the kettle is on")
    drain()
    answer = alice.patch(f"/memory/episodic/{first['episode_id']}", {"content": "the kettle is off"})
    assert answer.status_code == 200
    second = answer.get_json()
    assert (second["version"], second["seq"], second["embedding"]["state"]) == (2, first["seq"], "pending")
    assert second["nonce"] != first["nonce"]
    assert vector_text(sql, second["episode_id"]) == "none"
    verdicts = alice.post("/integrity/verify", {"receipts": [first, second]}).get_json()["verdicts"]
    assert [verdict["verdict"] for verdict in verdicts] == ["superseded", "pending"]
    drain()
    verdicts = alice.post("/integrity/verify", {"receipts": [first, second]}).get_json()["verdicts"]
    assert [verdict["verdict"] for verdict in verdicts] == ["superseded", "searchable"]


def test_other_fields_change_without_a_new_version_or_work(alice: Caller, drain: Callable[[], int], sql: Sql) -> None:
    first = store(alice, "kept", session_id="s", project="old", action_details={"n": 1}, context_state={"a": 1})
    drain()
    changes = {
        "action_type": "decision",
        "session_id": None,
        "tags": ["x", "ñ"],
        "importance_score": 0.9,
        "occurred_at": "2026-02-03T04:05:06Z",
        "metadata": {"k": [1, None]},
        "action_details": None,
        "context_state": None,
        "project": "new",
        "language": "es",
    }
    receipt = alice.patch(f"/memory/episodic/{first['episode_id']}", changes).get_json()
    assert {name: receipt[name] for name in ("version", "nonce", "content_sha256")} == {
        name: first[name] for name in ("version", "nonce", "content_sha256")
    }
    stored = alice.get(f"/memory/episodic/{first['episode_id']}").get_json()
    assert {name: stored[name] for name in changes} == changes
    assert (stored["content"], stored["embedding"]["state"]) == ("kept", "done")
    assert stored["updated_at"] > stored["created_at"]
    # Back to the first language's words, and out of the project.
    alice.patch(f"/memory/episodic/{first['episode_id']}", {"project": None})
    assert alice.get(f"/memory/episodic/{first['episode_id']}").get_json()["project"] is None


def test_another_actor_is_embedded_anew_under_the_same_version(alice: Caller, drain: Callable[[], int], sql: Sql) -> None:
    first = store(alice, "it rains", actor="bob")
    drain()
    receipt = alice.patch(f"/memory/episodic/{first['episode_id']}", {"actor": "carol"}).get_json()
    assert (receipt["version"], receipt["embedding"]["state"]) == (1, "pending")
    drain()
    assert vector_text(sql, first["episode_id"]) == "present"
    assert alice.post("/integrity/verify", {"receipts": [first]}).get_json()["summary"] == {"searchable": 1}


def test_change_with_an_expected_version_loses_to_an_earlier_one(alice: Caller) -> None:
    path = f"/memory/episodic/{store(alice, 'one')['episode_id']}"
    assert alice.patch(path, {"content": "two", "expected_version": 1}).status_code == 200
    late = alice.patch(path, {"content": "three", "expected_version": 1})
    assert (late.status_code, late.get_json()["code"], late.get_json()["version"]) == (409, "conflict", 2)
    assert alice.get(path).get_json()["content"] == "two"


def test_deleted_episode_leaves_a_tombstone_and_nothing_else(alice: Caller, drain: Callable[[], int], sql: Sql) -> None:
    first = store(alice, "secret words", idempotency_key="k1")
    drain()
    path = f"/memory/episodic/{first['episode_id']}"
    answer = alice.delete(path)
    tombstone = answer.get_json()
    assert answer.status_code == 200
    assert {name: tombstone[name] for name in ("episode_id", "seq", "version", "agent_id")} == {
        name: first[name] for name in ("episode_id", "seq", "version", "agent_id")
    }
    assert sql.one("SELECT encode(leaf, 'hex') FROM memory_system.ledger WHERE event = 'accepted'") == tombstone["leaf"]
    assert queue_row(sql, first["episode_id"]) is None
    for table in ("nexus_memory.zep_episodic_memory", "nexus_memory.episode_chunks"):
        assert sql.one(f"SELECT count(*) FROM {table}") == 0
    assert sql.one("SELECT count(*) FROM memory_system.ledger WHERE content_sha256 IS NOT NULL OR nonce IS NOT NULL") == 0
    for later in (alice.get(path), alice.delete(path), alice.patch(path, {"tags": []}), alice.get(f"{path}/context")):
        assert (later.status_code, later.get_json()["code"]) == (410, "gone")
    assert alice.post("/memory/action", {"content": "secret words", "idempotency_key": "k1"}).status_code == 410
    assert alice.post("/memory/search", {"query": "secret words", "mode": "keyword"}).get_json()["results"] == []
    assert alice.post("/integrity/verify", {"receipts": [first]}).get_json()["summary"] == {"deleted": 1}
    assert alice.get("/memory/episodic/recent").get_json()["items"] == []


def test_another_agents_episode_cannot_be_changed_or_deleted(alice: Caller, bob: Caller, caller: Callable[..., Caller]) -> None:
    path = f"/memory/episodic/{store(alice, 'of alice')['episode_id']}"
    for answer in (bob.patch(path, {"content": "of bob"}), bob.delete(path), bob.get(path), bob.get(f"{path}/context")):
        assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
    forged = bob.patch(path, {"content": "of bob", "agent_id": "alice"})
    assert forged.status_code == 403
    assert bob.delete(f"{path}?agent_id=alice").status_code == 403
    assert bob.delete(path, X_Agent_Id="alice").status_code == 403
    reader = caller("readonly", "alice")
    assert reader.patch(path, {"content": "no"}).status_code == reader.delete(path).status_code == 403
    assert alice.get(path).get_json()["content"] == "of alice"


def test_administrator_changes_and_deletes_for_the_agent_named(alice: Caller, caller: Callable[..., Caller]) -> None:
    admin = caller("admin")
    path = f"/memory/episodic/{store(alice, 'one')['episode_id']}"
    assert admin.patch(path, {"content": "two"}).get_json()["code"] == "agent_required"
    assert admin.patch(path, {"content": "two", "agent_id": "alice"}).status_code == 200
    assert admin.delete(path, X_Agent_Id="bob").status_code == 404
    assert admin.delete(f"{path}?agent_id=alice").status_code == 200


def test_projects_are_listed_with_their_episodes(alice: Caller, bob: Caller) -> None:
    for project in ("b", "a", "a"):
        store(alice, "x", project=project)
    store(bob, "y", project="of bob")
    items = alice.get("/projects").get_json()["items"]
    assert [(item["name"], item["episode_count"]) for item in items] == [("a", 2), ("b", 1)]


def test_hostile_values_in_filters_stay_values(alice: Caller) -> None:
    store(alice, "x", tags=["a"])
    for hostile in ("' OR true --", "a'); DROP TABLE nexus_memory.projects; --", "%", "{a}", '"a"', "\\", "a,b"):
        for name in ("session_id", "actor", "project", "tags_all", "tags_any", "action_type"):
            answer = alice.get(f"/memory/episodic?{name}={quote(hostile)}")
            assert (answer.status_code, answer.get_json()["items"]) == (200, []), (name, hostile)
        metadata = orjson.dumps({"k": hostile}).decode()
        assert alice.get(f"/memory/episodic?metadata={quote(metadata)}").get_json()["items"] == []
    assert alice.get(f"/memory/episodic/{uuid4()}").status_code == 404
