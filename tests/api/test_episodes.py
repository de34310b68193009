"""Storing and reading over HTTP with PostgreSQL behind it."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import orjson
import pytest

from tests.api.bad_inputs import BAD_INPUTS
from tests.api.conftest import Caller

FULL: dict[str, Any] = {
    "action_type": "tool_call",
    "content": "  Ñandú \u202e corrió 🦤\r\n\tfin ",
    "actor": "planner",
    "session_id": "s:1/ñ",
    "tags": ["a", "b b", "ñ"],
    "importance_score": 0.25,
    "metadata": {"z": [1, 2.5, None, True, {"k": "v\u2028"}], "a": 2**53},
    "action_details": {"file": "a.py", "n": -3},
    "context_state": {"step": 7},
    "project": "cerebro",
    "language": "es",
}


def test_episode_comes_back_as_it_was_sent(alice: Caller) -> None:
    receipt = alice.post("/memory/action", FULL | {"occurred_at": "2026-01-31T12:00:00.123456+02:00"}).get_json()
    stored = alice.get(f"/memory/episodic/{receipt['episode_id']}").get_json()
    assert {name: stored[name] for name in FULL} == FULL
    assert datetime.fromisoformat(stored["occurred_at"]) == datetime(2026, 1, 31, 10, 0, 0, 123456, tzinfo=UTC)
    assert stored["content_sha256"] == receipt["content_sha256"] == hashlib.sha256(FULL["content"].encode()).hexdigest()
    assert stored["agent_id"] == "alice"
    assert stored["version"] == 1
    assert stored["seq"] == receipt["seq"]
    assert stored["embedding"] == {"state": "pending", "attempts": 0, "last_error": None}


def test_longest_content_and_extreme_times_are_kept(alice: Caller) -> None:
    for content, occurred_at in (("ñ" * 200_000, "0001-01-01T00:00:00Z"), ("x", "9999-12-31T23:59:59.999999Z")):
        answer = alice.post("/memory/action", {"content": content, "occurred_at": occurred_at})
        assert answer.status_code == 201
        stored = alice.get(f"/memory/episodic/{answer.get_json()['episode_id']}").get_json()
        assert stored["content"] == content
        assert stored["occurred_at"] == occurred_at


def test_recent_is_latest_first_and_filters(alice: Caller) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in (2, 0, 1):
        body = {
            "content": f"n{number}",
            "occurred_at": (start + timedelta(days=number)).isoformat(),
            "session_id": f"s{number % 2}",
            "tags": ["even" if number % 2 == 0 else "odd", "all"],
        }
        assert alice.post("/memory/action", body).status_code == 201

    def contents(query: str) -> list[str]:
        return [item["content"] for item in alice.get(f"/memory/episodic/recent{query}").get_json()["items"]]

    for _ in range(2):  # The second answer may come from the cache.
        assert contents("") == ["n2", "n1", "n0"]
        assert contents("?limit=1") == ["n2"]
        assert contents("?session_id=s1") == ["n1"]
        assert contents("?tags=even&tags=all") == ["n2", "n0"]
        assert contents("?tags=none") == []
    assert alice.post("/memory/action", {"content": "n9", "occurred_at": "2026-02-01T00:00:00Z"}).status_code == 201
    assert contents("?limit=1") == ["n9"]


def test_same_key_and_body_give_the_first_receipt(alice: Caller) -> None:
    body = {"content": "once", "tags": ["a"], "metadata": {"b": 1, "a": 2}}
    first = alice.post("/memory/action", body, Idempotency_Key="k1")
    again = alice.post("/memory/action", {"metadata": {"a": 2, "b": 1}, "tags": ["a"], "content": "once", "idempotency_key": "k1"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.get_json() == again.get_json()
    other = alice.post("/memory/action", body | {"content": "twice"}, Idempotency_Key="k1")
    assert (other.status_code, other.get_json()["code"]) == (409, "idempotency_key_reused")
    assert len(alice.get("/memory/episodic/recent").get_json()["items"]) == 1


def test_keys_of_two_agents_do_not_meet(alice: Caller, bob: Caller) -> None:
    assert alice.post("/memory/action", {"content": "a"}, Idempotency_Key="k").status_code == 201
    assert bob.post("/memory/action", {"content": "b"}, Idempotency_Key="k").status_code == 201


def test_batch_gives_receipts_in_order_and_replays_known_items(alice: Caller) -> None:
    single = alice.post("/memory/action", {"content": "item 1", "idempotency_key": "i1"}).get_json()
    items = [{"content": f"item {number}", "idempotency_key": f"i{number}"} for number in range(3)]
    first = alice.post("/memory/actions", {"items": items})
    assert first.status_code == 201
    receipts = first.get_json()["items"]
    assert [receipt["content_sha256"] for receipt in receipts] == [hashlib.sha256(item["content"].encode()).hexdigest() for item in items]
    assert receipts[1] == single
    again = alice.post("/memory/actions", {"items": items})
    assert again.status_code == 200
    assert again.get_json() == first.get_json()


def test_batch_with_a_reused_key_stores_nothing(alice: Caller) -> None:
    alice.post("/memory/action", {"content": "first", "idempotency_key": "k"})
    answer = alice.post("/memory/actions", {"items": [{"content": "new"}, {"content": "other", "idempotency_key": "k"}]})
    assert answer.status_code == 409
    assert [item["content"] for item in alice.get("/memory/episodic/recent").get_json()["items"]] == ["first"]


def test_batch_of_a_thousand_is_stored(alice: Caller) -> None:
    answer = alice.post("/memory/actions", {"items": [{"content": f"item {number}"} for number in range(1000)]})
    assert answer.status_code == 201
    receipts = answer.get_json()["items"]
    assert len({receipt["episode_id"] for receipt in receipts}) == 1000
    assert [receipt["seq"] for receipt in receipts] == sorted(receipt["seq"] for receipt in receipts)


def test_words_are_found_at_once_and_pending_is_told(alice: Caller) -> None:
    alice.post("/memory/action", {"content": "the heron stands in the reeds"})
    answer = alice.post("/memory/search", {"query": "heron", "mode": "keyword"})
    assert answer.status_code == 200
    body = answer.get_json()
    assert [hit["content"] for hit in body["results"]] == ["the heron stands in the reeds"]
    assert body["pending_embeddings"] == 1
    assert body["took_ms"] > 0
    hit = body["results"][0]
    assert hit["memory_type"] == "episodic"
    assert 0 <= hit["score"] <= 1
    assert hit["embedding_state"] == "pending"


def test_two_agents_never_see_each_other(alice: Caller, bob: Caller) -> None:
    receipt = alice.post("/memory/action", {"content": "alice keeps a heron", "session_id": "s", "tags": ["t"]}).get_json()
    bob.post("/memory/action", {"content": "bob keeps a stork"})
    path = f"/memory/episodic/{receipt['episode_id']}"
    stranger = bob.get(path)
    unknown = bob.get(f"/memory/episodic/{uuid4()}")
    assert stranger.status_code == unknown.status_code == 404
    assert stranger.get_json()["code"] == unknown.get_json()["code"] == "not_found"
    assert [item["content"] for item in bob.get("/memory/episodic/recent").get_json()["items"]] == ["bob keeps a stork"]
    assert bob.get("/memory/episodic/recent?session_id=s").get_json()["items"] == []
    assert bob.get("/memory/episodic/recent?tags=t").get_json()["items"] == []
    for query in ("heron", "alice keeps"):
        results = bob.post("/memory/search", {"query": query, "mode": "keyword"}).get_json()["results"]
        assert all(hit["agent_id"] == "bob" for hit in results)
    claim = {name: value for name, value in receipt.items() if name not in ("agent_id", "created_at", "embedding")}
    verdicts = bob.post("/integrity/verify", {"receipts": [claim]}).get_json()
    assert verdicts["summary"] == {"missing": 1}
    assert alice.get(path).status_code == 200


def test_receipts_verify_and_forged_ones_do_not(alice: Caller) -> None:
    receipt = alice.post("/memory/action", {"content": "proof"}).get_json()
    assert alice.post("/integrity/verify", {"receipts": [receipt]}).get_json()["summary"] == {"pending": 1}
    for forged in ({"content_sha256": "0" * 64}, {"nonce": "00" * 16}, {"episode_id": str(uuid4())}):
        summary = alice.post("/integrity/verify", {"receipts": [receipt | forged]}).get_json()["summary"]
        assert set(summary) <= {"altered", "missing"}
    ranged = alice.post("/integrity/verify", {"first_seq": receipt["seq"], "last_seq": receipt["seq"]}).get_json()
    assert [verdict["episode_id"] for verdict in ranged["verdicts"]] == [receipt["episode_id"]]


def test_counts_are_seen_without_an_agent(caller: Callable[..., Caller], alice: Caller) -> None:
    alice.post("/memory/actions", {"items": [{"content": "one"}, {"content": "two"}]})
    operator = caller("operator")
    identity = operator.get("/integrity").get_json()
    assert (identity["accepted"], identity["pending"], identity["drift"]) == (2, 2, 0)
    assert operator.get("/stats").get_json()["embeddings_queue"]["pending"] == 2
    assert alice.get("/stats").get_json()["embeddings_queue"]["pending"] == 2
    metrics = operator.get("/metrics").get_data(as_text=True)
    assert 'embeddings_queue_depth{state="pending"} 2.0' in metrics
    assert "accounting_identity_drift 0.0" in metrics
    assert "nexus_database_up 1.0" in metrics


@pytest.mark.parametrize("role", ["agent", "admin"])
def test_no_bad_input_gets_past_the_real_services(role: str, caller: Callable[..., Caller]) -> None:
    me = caller(role, "alice" if role == "agent" else None)
    for case in BAD_INPUTS:
        headers = {"X-API-Key": me.key} | ({"X-Agent-Id": "alice"} if role == "admin" else {}) | dict(case.headers)
        data = orjson.dumps(case.json) if case.data is None and case.json is not None else case.data
        answer = me.client.open(
            case.path,
            method=case.method,
            data=data,
            headers=headers,
            content_type=case.content_type if case.method in ("POST", "PATCH", "PUT") else None,
        )
        assert 400 <= answer.status_code < 500, case.name
        assert answer.get_json(force=True)["code"], case.name
    recent = me.get("/memory/episodic/recent", X_Agent_Id="alice")
    assert recent.get_json()["items"] == []
