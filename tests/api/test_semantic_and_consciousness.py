"""Semantic memories, memory blocks and checkpoints over HTTP, with PostgreSQL behind it."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from app.consciousness.identity import identity_hash
from tests.api.conftest import Caller

SEMANTIC: dict[str, Any] = {
    "concept": "kettle",
    "definition": "  a vessel\nfor boiling ñ 🫖",
    "relationships": {"kind_of": ["vessel"], "n": None},
    "confidence_score": 0.75,
    "language": "es",
}


def test_semantic_memory_is_stored_changed_listed_and_deleted(alice: Caller) -> None:
    episode_id = alice.post("/memory/action", {"content": "saw a kettle"}).get_json()["episode_id"]
    made = alice.post("/memory/semantic", SEMANTIC | {"source_episodes": [episode_id]})
    assert made.status_code == 201
    stored = made.get_json()
    assert {name: stored[name] for name in SEMANTIC} == SEMANTIC
    assert (stored["source_episodes"], stored["version"], stored["embedding"]["state"]) == ([episode_id], 1, "pending")
    path = made.headers["Location"]
    assert alice.get(path).get_json() == stored
    changed = alice.patch(path, {"definition": "a pot", "source_episodes": [], "expected_version": 1}).get_json()
    assert (changed["version"], changed["definition"], changed["source_episodes"]) == (2, "a pot", [])
    assert alice.patch(path, {"definition": "late", "expected_version": 1}).status_code == 409
    alice.post("/memory/semantic", {"concept": "cup", "definition": "x"})
    first = alice.get("/memory/semantic?limit=1").get_json()
    second = alice.get(f"/memory/semantic?limit=1&cursor={first['next_cursor']}").get_json()
    assert [item["concept"] for item in first["items"] + second["items"]] == ["cup", "kettle"]
    assert second["next_cursor"] is None
    assert alice.delete(path).get_json() == {"memory_id": stored["memory_id"], "deleted": True}
    assert alice.get(path).status_code == alice.delete(path).status_code == alice.patch(path, {"concept": "a"}).status_code == 404


def test_search_over_every_kind(alice: Caller, drain: Callable[[], int]) -> None:
    alice.post("/memory/action", {"content": "the zeppelin landed"})
    alice.post("/memory/semantic", {"concept": "zeppelin", "definition": "an airship"})
    alice.put("/memory/working/now", {"active_content": {"watch": "zeppelin"}})
    drain()
    types = ["episodic", "semantic", "working"]
    found = alice.post("/memory/search", {"query": "zeppelin", "mode": "keyword", "memory_types": types}).get_json()["results"]
    assert sorted(hit["memory_type"] for hit in found) == types
    assert [hit["memory_type"] for hit in alice.post("/memory/search", {"query": "zeppelin"}).get_json()["results"]] == ["episodic"]


def test_blocks_and_checkpoints(alice: Caller, caller: Callable[..., Caller]) -> None:
    assert alice.put("/consciousness/blocks/persona", {"value": "calm"}).status_code == 201
    assert alice.put("/consciousness/blocks/persona", {"value": "bold", "expected_version": 1}).get_json()["version"] == 2
    assert alice.post("/consciousness/blocks", {"label": "oath ñ", "value": "do no harm", "read_only": True}).status_code == 201
    oath = f"/consciousness/blocks/{quote('oath ñ')}"
    for refused in (alice.put(oath, {"value": "x"}), alice.delete(oath)):
        assert (refused.status_code, refused.get_json()["code"]) == (409, "block_read_only")
    assert alice.put(oath, {"value": "x", "read_only": False}).status_code == 403
    assert [block["label"] for block in alice.get("/consciousness/blocks").get_json()["items"]] == ["oath ñ", "persona"]
    made = alice.post("/consciousness/checkpoints", {"state_data": {"step": 1}, "checkpoint_type": "nightly"})
    checkpoint = made.get_json()
    assert made.status_code == 201
    assert checkpoint["identity_hash"] == identity_hash({"persona": "bold", "oath ñ": "do no harm"})
    assert alice.get(made.headers["Location"]).get_json() == checkpoint
    restore = f"{made.headers['Location']}/restore"
    assert alice.post(restore, {}).get_json()["continuity_score"] == 1.0
    alice.put("/consciousness/blocks/persona", {"value": "wild"})
    answer = alice.post(restore, {"write_blocks": True}).get_json()
    assert (answer["continuity_score"], answer["changes"], answer["blocks_written"]) == (
        0.5,
        {"changed": ["persona"], "added": [], "removed": []},
        1,
    )
    assert answer["checkpoint"]["state_data"] == {"step": 1}
    assert alice.get("/consciousness/blocks/persona").get_json()["value"] == "bold"
    admin = caller("admin")
    unlocked = admin.put(oath, {"value": "do good", "read_only": False, "agent_id": "alice"})
    assert (unlocked.status_code, unlocked.get_json()["value"]) == (200, "do good")
    assert alice.delete(oath).get_json() == {"label": "oath ñ", "deleted": True}
    assert [item["checkpoint_type"] for item in alice.get("/consciousness/checkpoints").get_json()["items"]] == ["nightly"]


def test_another_agents_memories_cannot_be_reached(alice: Caller, bob: Caller, caller: Callable[..., Caller]) -> None:
    semantic = alice.post("/memory/semantic", SEMANTIC).headers["Location"]
    alice.put("/consciousness/blocks/persona", {"value": "of alice"})
    checkpoint = alice.post("/consciousness/checkpoints", {"state_data": {}}).headers["Location"]
    for answer in (
        bob.get(semantic),
        bob.patch(semantic, {"concept": "x"}),
        bob.delete(semantic),
        bob.get("/consciousness/blocks/persona"),
        bob.delete("/consciousness/blocks/persona"),
        bob.get(checkpoint),
        bob.post(f"{checkpoint}/restore", {}),
    ):
        assert answer.status_code == 404
    for path in ("/memory/semantic", "/consciousness/blocks", "/consciousness/checkpoints"):
        assert bob.get(path).get_json()["items"] == []
        assert bob.get(f"{path}?agent_id=alice").status_code == bob.get(path, X_Agent_Id="alice").status_code == 403
    assert bob.put("/consciousness/blocks/persona", {"value": "x", "agent_id": "alice"}).status_code == 403
    assert caller("operator").get("/memory/semantic", X_Agent_Id="alice").status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("post", "/memory/semantic", {"definition": "x"}, "concept"),
        ("post", "/memory/semantic", {"concept": "x", "definition": " "}, "definition"),
        ("post", "/memory/semantic", {"concept": "x", "definition": "y", "confidence_score": 1.5}, "confidence_score"),
        ("post", "/memory/semantic", {"concept": "x", "definition": "y", "source_episodes": ["z"]}, "source_episodes.0"),
        ("post", "/memory/semantic", {"concept": "x", "definition": "y", "relationships": []}, "relationships"),
        ("post", "/memory/semantic", {"concept": "x", "definition": "y", "tags": []}, "tags"),
        ("post", "/consciousness/blocks", {"label": "a/b", "value": "x"}, "label"),
        ("post", "/consciousness/blocks", {"label": " ", "value": "x"}, "label"),
        ("post", "/consciousness/blocks", {"label": "a", "value": "x" * 100_001}, "value"),
        ("put", "/consciousness/blocks/a", {"value": "a\x00b"}, "value"),
        ("put", "/consciousness/blocks/a", {"value": "x", "read_only": "no"}, "read_only"),
        ("put", "/consciousness/blocks/a", {}, "value"),
        ("post", "/consciousness/checkpoints", {"state_data": "x"}, "state_data"),
        ("post", "/consciousness/checkpoints", {"state_data": {}, "identity_hash": "0"}, "identity_hash"),
    ],
)
def test_bad_input_is_refused_by_its_name(method: str, path: str, body: Any, field: str, alice: Caller) -> None:
    answer = getattr(alice, method)(path, body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]
    for listed in ("/memory/semantic", "/consciousness/blocks", "/consciousness/checkpoints"):
        refused = alice.get(f"{listed}?cursor=AAAA")
        assert (refused.status_code, refused.get_json()["errors"][0]["field"]) == (422, "cursor")
