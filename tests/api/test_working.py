"""Working memory over HTTP, with PostgreSQL and Redis behind it."""

from collections.abc import Callable

from tests.api.conftest import Caller


def test_context_is_made_replaced_read_and_deleted(alice: Caller) -> None:
    body = {"active_content": {"goal": "ship ñ", "n": [1, None]}, "session_id": "s", "priority": "high", "context_type": "plan"}
    made = alice.put("/memory/working/plan", body | {"ttl_seconds": 60})
    assert made.status_code == 201
    stored = made.get_json()
    assert {name: stored[name] for name in body} == body
    assert (stored["ttl_seconds"], stored["context_id"], stored["agent_id"]) == (60, "plan", "alice")
    assert alice.get("/memory/working/plan").get_json() == stored
    replaced = alice.put("/memory/working/plan", {"active_content": {"goal": "rest"}})
    assert replaced.status_code == 200
    assert (replaced.get_json()["ttl_seconds"], replaced.get_json()["priority"]) == (86_400, "normal")
    assert alice.get("/memory/working/plan").get_json()["active_content"] == {"goal": "rest"}
    assert alice.delete("/memory/working/plan").get_json() == {"context_id": "plan", "deleted": True}
    for later in (alice.get("/memory/working/plan"), alice.delete("/memory/working/plan")):
        assert (later.status_code, later.get_json()["code"]) == (404, "not_found")


def test_post_makes_and_refuses_to_replace(alice: Caller) -> None:
    made = alice.post("/memory/working", {"active_content": {"a": 1}})
    assert made.status_code == 201
    path = made.headers["Location"]
    assert alice.get(path).get_json() == made.get_json()
    again = alice.post("/memory/working", {"active_content": {"a": 2}, "context_id": made.get_json()["context_id"]})
    assert (again.status_code, again.get_json()["code"]) == (409, "conflict")
    assert alice.get(path).get_json()["active_content"] == {"a": 1}


def test_list_pages_and_filters(alice: Caller, bob: Caller) -> None:
    for number, priority in enumerate(("low", "critical", "normal")):
        alice.put(f"/memory/working/c{number}", {"active_content": {}, "priority": priority, "session_id": f"s{number % 2}"})
    bob.put("/memory/working/of-bob", {"active_content": {}, "priority": "critical"})
    first = alice.get("/memory/working?limit=2").get_json()
    second = alice.get(f"/memory/working?limit=2&cursor={first['next_cursor']}").get_json()
    assert [item["context_id"] for item in first["items"] + second["items"]] == ["c1", "c2", "c0"]
    assert second["next_cursor"] is None
    assert [item["context_id"] for item in alice.get("/memory/working?session_id=s0").get_json()["items"]] == ["c2", "c0"]
    assert alice.get(f"/memory/working?session_id=s0&cursor={first['next_cursor']}").get_json()["errors"][0]["code"] == "bad_cursor"


def test_another_agents_context_cannot_be_reached(alice: Caller, bob: Caller, caller: Callable[..., Caller]) -> None:
    alice.put("/memory/working/c", {"active_content": {"of": "alice"}})
    for answer in (bob.get("/memory/working/c"), bob.delete("/memory/working/c")):
        assert answer.status_code == 404
    for forged in (
        bob.put("/memory/working/c", {"active_content": {}, "agent_id": "alice"}),
        bob.get("/memory/working/c?agent_id=alice"),
        bob.get("/memory/working/c", X_Agent_Id="alice"),
        bob.delete("/memory/working/c?agent_id=alice"),
        bob.get("/memory/working?agent_id=alice"),
    ):
        assert forged.status_code == 403
    assert bob.put("/memory/working/c", {"active_content": {"of": "bob"}}).status_code == 201
    assert alice.get("/memory/working/c").get_json()["active_content"] == {"of": "alice"}
    admin = caller("admin")
    assert admin.get("/memory/working/c", X_Agent_Id="bob").get_json()["active_content"] == {"of": "bob"}


def test_reader_may_not_refresh(alice: Caller, caller: Callable[..., Caller]) -> None:
    alice.put("/memory/working/c", {"active_content": {}, "ttl_seconds": 100})
    reader = caller("readonly", "alice")
    assert reader.get("/memory/working/c").status_code == 200
    assert reader.get("/memory/working/c?refresh=true").status_code == 403
    assert alice.get("/memory/working/c?refresh=true").status_code == 200
