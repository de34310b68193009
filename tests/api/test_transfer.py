"""Export and import over HTTP: everything comes back, once, and nothing of another agent's."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import orjson
import pytest
from werkzeug.test import TestResponse

from app.bootstrap import Services
from app.consciousness.identity import identity_hash
from tests.api.conftest import Caller
from tests.factories.statements import Sql

NDJSON = "application/x-ndjson"
EPISODE_FIELDS = ("episode_id", "content", "action_type", "actor", "session_id", "tags", "importance_score", "occurred_at", "metadata")


def export(caller: Caller) -> list[dict[str, Any]]:
    answer = caller.get("/export")
    assert (answer.status_code, answer.content_type) == (200, NDJSON)
    return [orjson.loads(line) for line in answer.data.splitlines()]


def send(caller: Caller, lines: list[Any] | bytes, content_type: str = NDJSON, **headers: str) -> TestResponse:
    data = lines if isinstance(lines, bytes) else b"".join(orjson.dumps(line) + b"\n" for line in lines)
    return caller.client.post("/import", data=data, headers={"X-API-Key": caller.key, "Content-Type": content_type} | headers)


def fill(caller: Caller) -> None:
    """Store something of each kind, with what is hard to carry."""
    caller.post(
        "/memory/action",
        {
            "content": 'line\r\n"quoted" \u2028 ñ 🦤 \\n',
            "actor": "Lena",
            "session_id": "s:1",
            "tags": ["a", "b b"],
            "importance_score": 0.123456789,
            "occurred_at": "0001-01-01T00:00:00Z",
            "metadata": {"z": [1, 2.5, None, True, {"k": "v"}], "big": 2**53},
            "action_details": {"n": -3},
            "context_state": {"step": 7},
            "project": "cerebro",
            "language": "es",
            "idempotency_key": "k-1",
        },
    )
    for number in range(3):
        caller.post("/memory/action", {"content": f"n{number}", "occurred_at": "9999-12-31T23:59:59.999999Z"})
    source = caller.get("/memory/episodic?limit=1").get_json()["items"][0]["episode_id"]
    caller.post("/memory/semantic", {"concept": "c", "definition": "d ñ", "relationships": {"a": []}, "source_episodes": [source]})
    caller.put("/memory/working/plan", {"active_content": {"goal": "ship"}, "priority": "high", "ttl_seconds": 600})
    caller.put("/consciousness/blocks/persona", {"value": "calm\n"})
    caller.post("/consciousness/blocks", {"label": "oath", "value": "do no harm", "read_only": True})
    caller.post("/consciousness/checkpoints", {"state_data": {"step": 1}, "metadata": {"m": 1}})


def test_export_frames_everything_with_header_and_counts(alice: Caller, bob: Caller) -> None:
    fill(alice)
    bob.post("/memory/action", {"content": "of bob"})
    header, *lines, end = export(alice)
    assert (header["type"], header["format"], header["version"], header["agent_id"]) == ("header", "nexus-cerebro-export", 1, "alice")
    assert end["counts"] == {"episode": 4, "semantic": 1, "working": 1, "block": 2, "checkpoint": 1}
    assert [line["type"] for line in lines] == ["episode"] * 4 + ["semantic", "working", "block", "block", "checkpoint"]
    assert {line["agent_id"] for line in lines} == {"alice"}
    assert "of bob" not in json.dumps(lines)
    for line in lines[:4]:
        assert line["content_sha256"] == hashlib.sha256(line["content"].encode()).hexdigest()


def test_forgotten_agent_comes_back_from_its_export_whole(alice: Caller, sql: Sql, drain: Callable[[], int]) -> None:
    fill(alice)
    exported = export(alice)
    stored = alice.get("/memory/episodic").get_json()["items"]
    # As in a new installation: nothing here knows the ids.
    for table in ("zep_episodic_memory", "semantic_memories", "working_memory_contexts", "projects"):
        sql(f"DELETE FROM nexus_memory.{table}")
    sql("DELETE FROM memory_system.ledger")
    sql("UPDATE consciousness.memory_blocks SET read_only = false")
    sql("DELETE FROM consciousness.memory_blocks")
    sql("DELETE FROM consciousness.consciousness_checkpoints")
    answer = send(alice, exported)
    assert answer.status_code == 200
    report = answer.get_json()
    assert report["imported"] == {"episode": 4, "semantic": 1, "working": 1, "block": 2, "checkpoint": 1}
    assert (report["failed"], report["errors"], report["is_complete"], report["lines"]) == (0, [], True, len(exported))
    drain()
    given_anew = {"seq", "created_at", "updated_at", "embedding"}
    for before, now in zip(stored, alice.get("/memory/episodic").get_json()["items"], strict=True):
        assert {k: v for k, v in now.items() if k not in given_anew} == {k: v for k, v in before.items() if k not in given_anew}
        assert now["embedding"]["state"] == "done"
    again = export(alice)
    dropped = {"seq", "created_at", "updated_at", "exported_at", "version"}

    def essence(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in line.items() if k not in dropped} for line in lines]

    assert essence(again) == essence(exported)
    assert alice.post("/memory/search", {"query": "calm", "mode": "keyword"}).status_code == 200
    # The key still answers for its episode.
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory WHERE idempotency_key = 'k-1'") == 1


def test_file_sent_again_changes_nothing(alice: Caller, sql: Sql) -> None:
    fill(alice)
    exported = export(alice)
    for _ in range(2):
        report = send(alice, exported).get_json()
        assert (report["imported"], report["failed"]) == ({}, 0)
        assert report["unchanged"] == {"episode": 4, "semantic": 1, "working": 1, "block": 2, "checkpoint": 1}
    assert sql.one("SELECT count(*) FROM memory_system.ledger") == 4
    assert export(alice)[1:-1] == exported[1:-1]


def test_half_a_file_and_then_the_whole_ends_the_same(alice: Caller, sql: Sql) -> None:
    fill(alice)
    exported = export(alice)
    sql("DELETE FROM nexus_memory.zep_episodic_memory")
    sql("DELETE FROM memory_system.ledger")
    half = send(alice, exported[:3]).get_json()
    assert (half["imported"], half["is_complete"]) == ({"episode": 2}, False)
    whole = send(alice, exported).get_json()
    assert (whole["imported"], whole["unchanged"]["episode"], whole["is_complete"]) == ({"episode": 2}, 2, True)


def test_what_is_another_agents_or_was_deleted_or_altered_is_refused_by_line(
    alice: Caller, bob: Caller, caller: Callable[..., Caller]
) -> None:
    of_alice = alice.post("/memory/action", {"content": "of alice"}).get_json()["episode_id"]
    header = {"type": "header", "format": "nexus-cerebro-export", "version": 1}
    base = {"type": "episode", "content": "x", "occurred_at": "2026-01-01T00:00:00Z"}
    deleted = bob.post("/memory/action", {"content": "x"}).get_json()["episode_id"]
    bob.delete(f"/memory/episodic/{deleted}")
    own = bob.post("/memory/action", {"content": "as it is"}).get_json()["episode_id"]
    new = "00000000-0000-4000-8000-000000000001"
    lines: list[Any] = [
        header,
        base | {"episode_id": of_alice},
        base | {"episode_id": of_alice, "agent_id": "alice"},
        base | {"episode_id": deleted},
        base | {"episode_id": own},
        base | {"episode_id": new, "content_sha256": "0" * 64},
        base | {"episode_id": new, "content": " "},
        base | {"episode_id": "not an id"},
        {"type": "dream"},
        [],
        header,
        {"type": "checkpoint", "checkpoint_id": new, "checkpoint_type": "t", "state_data": {}, "blocks": {"a": "b"},
         "identity_hash": "0" * 64, "created_at": "2026-01-01T00:00:00Z"},
        base | {"episode_id": new},
        base | {"episode_id": new},
        base | {"episode_id": new, "content": "another"},
    ]  # fmt: skip
    report = send(bob, lines).get_json()
    assert [(error["line"], error["status"], error["code"]) for error in report["errors"]] == [
        (2, 409, "episode_id_taken"),
        (3, 403, "permission_denied"),
        (4, 410, "gone"),
        (5, 409, "conflict"),
        (6, 422, "hash_mismatch"),
        (7, 422, "invalid_request"),
        (8, 422, "invalid_request"),
        (9, 422, "invalid_request"),
        (10, 422, "invalid_request"),
        (11, 422, "invalid_request"),
        (12, 422, "hash_mismatch"),
        (15, 409, "conflict"),
    ]
    assert (report["imported"], report["unchanged"], report["failed"], report["is_complete"]) == ({"episode": 1}, {"episode": 1}, 12, False)
    assert alice.get(f"/memory/episodic/{of_alice}").get_json()["content"] == "of alice"
    assert bob.get(f"/memory/episodic/{own}").get_json()["content"] == "as it is"
    assert bob.get(f"/memory/episodic/{deleted}").status_code == 410


def test_ids_of_other_kinds_that_another_agent_has_are_refused(alice: Caller, bob: Caller) -> None:
    fill(alice)
    lines = [{k: v for k, v in line.items() if k not in {"agent_id", "source_episodes"}} for line in export(alice)]
    report = send(bob, lines).get_json()
    refused = {(error["kind"], error["code"]) for error in report["errors"]}
    assert refused == {("episode", "episode_id_taken"), ("semantic", "id_taken"), ("checkpoint", "id_taken")}
    # What is named by the agent itself is its own.
    assert report["imported"] == {"working": 1, "block": 2}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("episode", {"tags": ["zzz"]}),
        ("episode", {"importance_score": 0.9}),
        ("episode", {"actor": "Mia"}),
        ("episode", {"metadata": {"other": 1}}),
        ("episode", {"project": "other"}),
        ("episode", {"occurred_at": "2020-01-01T00:00:00Z"}),
        ("semantic", {"relationships": {"b": []}}),
        ("semantic", {"confidence_score": 0.9}),
        ("semantic", {"language": "simple"}),
        ("semantic", {"source_episodes": []}),
        ("working", {"priority": "low"}),
        ("working", {"ttl_seconds": 601}),
        ("checkpoint", {"metadata": {"m": 2}}),
        ("checkpoint", {"checkpoint_type": "other"}),
        ("checkpoint", {"continuity_score": 0.25}),
        ("checkpoint", {"created_at": "2020-01-01T00:00:00Z"}),
        ("working", {"session_id": "other"}),
        ("block", {"read_only": True}),
    ],
)
def test_line_that_says_something_else_of_what_is_stored_is_named(kind: str, change: dict[str, Any], alice: Caller) -> None:
    fill(alice)
    exported = export(alice)
    line = next(each for each in exported if each["type"] == kind and each.get("read_only") is not True)
    report = send(alice, [exported[0], line | change]).get_json()
    assert (report["unchanged"], [error["code"] for error in report["errors"]]) == ({}, ["conflict"])
    # And what is stored stays as it was.
    assert next(each for each in export(alice) if each == line) == line


def test_imported_working_memory_is_in_redis_as_if_it_had_been_put(alice: Caller, services: Services, sql: Sql) -> None:
    fill(alice)
    exported = export(alice)
    alice.delete("/memory/working/plan")
    assert send(alice, exported).get_json()["imported"] == {"working": 1}
    value, _ = services.working._cache.read("alice", "plan")
    assert value is not None
    assert sql("SELECT cache_sha1 FROM nexus_memory.working_memory_contexts")[0][0] is not None


def test_expired_working_memory_is_left_out(alice: Caller) -> None:
    header = {"type": "header", "format": "nexus-cerebro-export", "version": 1}
    line = {"type": "working", "context_id": "c", "active_content": {}, "ttl_seconds": 60}
    now = datetime.now(UTC)
    past = line | {"expires_at": (now - timedelta(seconds=1)).isoformat()}
    future = line | {"context_id": "d", "expires_at": (now + timedelta(seconds=60)).isoformat()}
    report = send(alice, [header, past, future]).get_json()
    assert (report["expired"], report["imported"], report["failed"]) == ({"working": 1}, {"working": 1}, 0)
    assert alice.get("/memory/working/c").status_code == 404
    assert alice.get("/memory/working/d").status_code == 200


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", b"{}\n", b'{"type": "episode"}\n', b'{"type":"header","format":"other","version":1}\n',
     b'{"type":"header","format":"nexus-cerebro-export","version":2}\n'],
)  # fmt: skip
def test_file_without_our_header_is_refused_whole(data: bytes, alice: Caller) -> None:
    answer = send(alice, data)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_request")


def test_file_of_another_agent_is_refused_whole(alice: Caller, bob: Caller, caller: Callable[..., Caller]) -> None:
    alice.post("/memory/action", {"content": "x"})
    exported = export(alice)
    assert send(bob, exported).status_code == 422
    assert send(caller("readonly", "alice"), exported).status_code == 403
    assert send(caller("operator"), exported).status_code == 403
    assert send(bob, exported, **{"X-Agent-Id": "alice"}).status_code == 403
    assert caller("operator").get("/export", X_Agent_Id="alice").status_code == 403
    assert bob.get("/export?agent_id=alice").status_code == 403
    admin = caller("admin")
    assert send(admin, exported, **{"X-Agent-Id": "alice"}).get_json()["unchanged"] == {"episode": 1}
    assert caller("readonly", "alice").get("/export").status_code == 200


def test_wrong_type_of_body_is_refused(alice: Caller) -> None:
    for content_type in ("application/json", "text/plain"):
        assert send(alice, b"{}", content_type).status_code == 415
    assert send(alice, b"{}", NDJSON, **{"Content-Encoding": "gzip"}).status_code == 415


def test_many_and_long_lines_are_read_as_they_come(alice: Caller, sql: Sql) -> None:
    header = {"type": "header", "format": "nexus-cerebro-export", "version": 1}
    base = {"type": "episode", "occurred_at": "2026-01-01T00:00:00Z"}
    many = [base | {"episode_id": f"00000000-0000-4000-8000-{n:012}", "content": f"n{n} " + "ñ" * 3000} for n in range(1500)]
    lines = b"\n".join(orjson.dumps(line) for line in [header, *many])
    too_long = b'{"type": "episode", "content": "' + b"x" * 5_000_000 + b'"}'
    # The whole is larger than MAX_BODY_BYTES, which holds for every other route.
    report = send(alice, lines + b"\r\n\n" + too_long + b"\n" + orjson.dumps({"type": "end", "counts": {"episode": 1500}})).get_json()
    assert report["imported"] == {"episode": 1500}
    assert [(error["status"], error["code"]) for error in report["errors"]] == [(413, "body_too_large")]
    assert len(lines) > alice.client.application.config["MAX_CONTENT_LENGTH"]
    assert report["is_complete"] is True


def test_every_line_that_fails_is_counted_though_not_all_are_named(alice: Caller, sql: Sql) -> None:
    stored = [alice.post("/memory/actions", {"items": [{"content": f"n{n}"} for n in range(150)]}) for _ in range(2)]
    assert [answer.status_code for answer in stored] == [201, 201]
    exported = export(alice)
    assert alice.client.delete("/agents/alice", headers={"X-API-Key": alice.key}).status_code == 200
    report = send(alice, exported).get_json()
    assert (report["failed"], len(report["errors"]), report["imported"]) == (300, 100, {})


def test_semantic_memory_that_names_another_agents_episode_is_refused(alice: Caller, bob: Caller) -> None:
    theirs = bob.post("/memory/action", {"content": "bob's secret"}).get_json()["episode_id"]
    alice.post("/memory/semantic", {"concept": "tide", "definition": "the sea moves"})
    header, line, end = export(alice)
    assert line["type"] == "semantic"
    forged = line | {"memory_id": "00000000-0000-4000-8000-000000000001", "source_episodes": [theirs]}
    report = send(alice, [header, forged, end]).get_json()
    assert [(error["status"], error["code"]) for error in report["errors"]] == [(409, "episode_id_taken")]
    assert report["imported"] == {}


def test_working_memory_that_outlives_its_time_is_refused(alice: Caller) -> None:
    alice.client.put("/memory/working/c", json={"active_content": {"n": 1}, "ttl_seconds": 10}, headers={"X-API-Key": alice.key})
    header, line, end = export(alice)
    report = send(alice, [header, line | {"context_id": "d", "expires_at": "9999-12-31T00:00:00Z"}, end]).get_json()
    assert [(error["status"], error["code"]) for error in report["errors"]] == [(422, "invalid_request")]
    assert alice.get("/memory/working/d").status_code == 404


@pytest.mark.parametrize("created_at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 1767225600, "1767225600", "2026-01-01"])
def test_checkpoint_of_no_time_that_can_be_told_is_refused(created_at: Any, alice: Caller) -> None:
    alice.post("/consciousness/checkpoints", {"state_data": {"step": 1}})
    header, line, _ = export(alice)
    report = send(alice, [header, line | {"checkpoint_id": str(uuid4()), "created_at": created_at}]).get_json()
    told = [(error["status"], error["code"]) for error in report["errors"]]
    if created_at == "2026-01-01":
        assert told == []  # As for episodes: the beginning of that day in UTC.
    else:
        assert told == [(422, "invalid_request")]
    assert alice.get("/consciousness/checkpoints").status_code == 200
    assert alice.post("/consciousness/checkpoints", {"state_data": {"step": 2}}).status_code == 201


@pytest.mark.parametrize(
    ("label", "value"), [("", "v"), (" ", "v"), ("x" * 129, "v"), ("a/b", "v"), ("..", "v"), ("a", "v" * 100_001), ("a", "\0")]
)
def test_checkpoint_of_blocks_that_no_block_can_be_is_refused(label: str, value: str, alice: Caller) -> None:
    alice.post("/consciousness/checkpoints", {"state_data": {"step": 1}})
    header, line, _ = export(alice)
    blocks = {label: value}
    forged = line | {"checkpoint_id": str(uuid4()), "blocks": blocks, "identity_hash": identity_hash(blocks)}
    report = send(alice, [header, forged]).get_json()
    assert [(error["status"], error["code"]) for error in report["errors"]] == [(422, "invalid_request")]
    assert alice.post("/consciousness/blocks", {"label": label, "value": value}).status_code == 422


def test_semantic_memory_of_too_many_sources_is_refused(alice: Caller) -> None:
    alice.post("/memory/semantic", {"concept": "tide", "definition": "the sea moves"})
    header, line, _ = export(alice)
    many = [line | {"memory_id": str(uuid4()), "source_episodes": [str(uuid4()) for _ in range(count)]} for count in (1000, 1001)]
    report = send(alice, [header, *many]).get_json()
    assert [(error["line"], error["status"], error["code"]) for error in report["errors"]] == [(3, 422, "invalid_request")]
    assert report["imported"] == {"semantic": 1}
