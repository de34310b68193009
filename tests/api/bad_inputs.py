"""The table of inputs that must be refused with 4xx and a code, whatever stands behind the routes."""

from dataclasses import dataclass
from typing import Any

import orjson

ID = "7b0c4f9a-3c1d-4a57-9d7e-0d3a6b6f0a11"
HASH = "0" * 64


@dataclass(frozen=True)
class BadInput:
    """One request that must fail: what it sends, and the status, code and field of the answer."""

    name: str
    path: str
    status: int
    code: str
    json: Any = None
    data: bytes | None = None
    method: str = "POST"
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    field: str | None = None


def _store(name: str, field: str | None = None, status: int = 422, code: str = "invalid_request", **body: Any) -> BadInput:
    return BadInput(name, "/memory/action", status, code, json={"content": "x"} | body, field=field)


def _raw(name: str, status: int, code: str, data: bytes, content_type: str = "application/json") -> BadInput:
    return BadInput(name, "/memory/action", status, code, data=data, content_type=content_type)


def _search(name: str, field: str | None = None, **body: Any) -> BadInput:
    return BadInput(name, "/memory/search", 422, "invalid_request", json={"query": "x"} | body, field=field)


def _get(name: str, path: str, status: int = 422, code: str = "invalid_request", field: str | None = None) -> BadInput:
    return BadInput(name, path, status, code, method="GET", field=field)


def _patch(name: str, field: str | None = None, status: int = 422, code: str = "invalid_request", **body: Any) -> BadInput:
    return BadInput(name, f"/memory/episodic/{ID}", status, code, json=body, method="PATCH", field=field)


def _context(name: str, field: str | None = None, path: str = "/memory/working/c", status: int = 422, **body: Any) -> BadInput:
    return BadInput(name, path, status, "invalid_request", json={"active_content": {}} | body, method="PUT", field=field)


def _verify(name: str, field: str | None = None, **body: Any) -> BadInput:
    return BadInput(name, "/integrity/verify", 422, "invalid_request", json=body, field=field)


RECEIPT = {"episode_id": ID, "seq": 1, "version": 1, "content_sha256": HASH, "nonce": "ab" * 16}

BAD_INPUTS = [
    _raw("empty body", 400, "malformed_json", b""),
    _raw("cut JSON", 400, "malformed_json", b'{"content": "x"'),
    _raw("not UTF-8", 400, "malformed_json", b'{"content": "\xff\xfe"}'),
    _raw("lone surrogate", 400, "malformed_json", b'{"content": "\\ud800"}'),
    _raw("raw NUL", 400, "malformed_json", b'{"content": "a\x00b"}'),
    _raw("NaN", 400, "malformed_json", b'{"content": "x", "importance_score": NaN}'),
    _raw("Infinity", 400, "malformed_json", b'{"content": "x", "importance_score": Infinity}'),
    _raw("number with 400 digits", 400, "malformed_json", b'{"content": "x", "importance_score": 1' + b"0" * 400 + b"}"),
    _raw("100,000 brackets", 400, "malformed_json", b"[" * 100_000),
    _raw("100,000 nested objects", 400, "malformed_json", b'{"metadata":' * 100_000 + b"1" + b"}" * 100_000),
    _raw("two documents", 400, "malformed_json", b'{"content": "x"}{"content": "y"}'),
    _raw("array", 422, "invalid_request", b"[]"),
    _raw("text", 422, "invalid_request", b'"content"'),
    _raw("text that holds an object", 422, "invalid_request", b'"{\\"content\\": \\"x\\"}"'),
    _raw("null", 422, "invalid_request", b"null"),
    _raw("form", 415, "unsupported_media_type", b"content=x", "application/x-www-form-urlencoded"),
    _raw("text type", 415, "unsupported_media_type", b'{"content": "x"}', "text/plain"),
    _raw("no type", 415, "unsupported_media_type", b'{"content": "x"}', ""),
    _raw("body too large", 413, "body_too_large", b'{"content": "' + b"x" * 9_000_000 + b'"}'),
    _store("content too large", "content", 413, "content_too_large", content="x" * 200_001),
    _store(
        "details' content too large", "action_details", 413, "content_too_large", action_details={"content": "x" * 200_001}, content=None
    ),
    _store("blank content", "content", content=" \t\n\u3000"),
    _store("empty content", "content", content=""),
    _store("blank content in details", "content", content=None, action_details={"content": "  "}),
    _store("neither content nor details", "content", content=None),
    _store("empty details", "content", content=None, action_details={}),
    _store("content a number", "content", content=7),
    _store("content an object", "content", content={"text": "x"}),
    _store("NUL in content", "content", content="a\0b"),
    _store("NUL in details' content", "action_details", content=None, action_details={"content": "a\0b"}),
    _store("unknown field", "importance", importance=0.5),
    BadInput("unknown field with a strange name", "/memory/action", 422, "invalid_request", json={"content": "x", "\u202e" * 500: "x"}),
    _store("importance 1.5", "importance_score", importance_score=1.5),
    _store("importance -0.1", "importance_score", importance_score=-0.1),
    _store("importance text", "importance_score", importance_score="0.5"),
    _store("importance true", "importance_score", importance_score=True),
    _store("importance 2^70", "importance_score", importance_score=2.0**70),
    _store("tags text", "tags", tags="a"),
    _store("tags too many", "tags", tags=["a"] * 65),
    _store("tag blank", "tags.1", tags=["a", " "]),
    _store("tag too long", "tags.0", tags=["a" * 129]),
    _store("tag a number", "tags.0", tags=[1]),
    _store("NUL in tag", "tags.0", tags=["a\0"]),
    _store("session blank", "session_id", session_id=""),
    _store("session too long", "session_id", session_id="s" * 257),
    _store("NUL in session", "session_id", session_id="s\0"),
    _store("actor too long", "actor", actor="a" * 129),
    _store("action type blank", "action_type", action_type=" "),
    _store("action type too long", "action_type", action_type="a" * 257),
    _store("project too long", "project", project="p" * 257),
    _store("language unknown", "language", language="tlh"),
    _store("metadata a list", "metadata", metadata=[]),
    _store("metadata too large", "metadata", metadata={"a": "x" * 65_536}),
    _store("NUL in metadata value", "metadata", metadata={"a": ["\0"]}),
    _store("NUL in metadata name", "metadata", metadata={"a\0": 1}),
    _store("metadata 2^63", "metadata", metadata={"a": 2**63}),
    _store("metadata 1e300", "metadata", metadata={"a": 1e300}),
    _store("metadata nested 200 deep", "metadata", metadata=orjson.loads(b'{"a":' * 200 + b"1" + b"}" * 200)),
    _store("context state a text", "context_state", context_state="busy"),
    _store("details a text", "action_details", action_details="x"),
    _store("details too large", "action_details", action_details={"a": "x" * 65_536}),
    _store("time a number", "occurred_at", occurred_at=1_700_000_000),
    _store("time a digit text", "occurred_at", occurred_at="1700000000"),
    _store("time nonsense", "occurred_at", occurred_at="yesterday"),
    _store("year 0", "occurred_at", occurred_at="0000-01-01T00:00:00Z"),
    _store("year 99999", "occurred_at", occurred_at="99999-01-01T00:00:00Z"),
    _store("before year 1 in UTC", "occurred_at", occurred_at="0001-01-01T00:00:00+14:00"),
    _store("after year 9999 in UTC", "occurred_at", occurred_at="9999-12-31T23:59:59-14:00"),
    _store("30 February", "occurred_at", occurred_at="2026-02-30T00:00:00Z"),
    _store("agent with a colon", "agent_id", agent_id="a:b"),
    _store("agent with a newline", "agent_id", agent_id="alice\n"),
    _store("agent too long", "agent_id", agent_id="a" * 129),
    _store("idempotency key blank", "idempotency_key", idempotency_key=" "),
    _store("idempotency key too long", "idempotency_key", idempotency_key="k" * 257),
    BadInput(
        "idempotency keys differ",
        "/memory/action",
        422,
        "invalid_request",
        json={"content": "x", "idempotency_key": "a"},
        headers=(("Idempotency-Key", "b"),),
    ),
    BadInput(
        "idempotency header too long",
        "/memory/action",
        422,
        "invalid_request",
        json={"content": "x"},
        headers=(("Idempotency-Key", "k" * 257),),
    ),
    BadInput(
        "agent header malformed",
        "/memory/action",
        422,
        "invalid_request",
        json={"content": "x"},
        headers=(("X-Agent-Id", "a b"),),
        field="X-Agent-Id",
    ),
    BadInput(
        "agents differ",
        "/memory/action",
        422,
        "agent_mismatch",
        json={"content": "x", "agent_id": "alice"},
        headers=(("X-Agent-Id", "bob"),),
    ),
    BadInput("batch empty", "/memory/actions", 422, "invalid_request", json={"items": []}, field="items"),
    BadInput("batch without items", "/memory/actions", 422, "invalid_request", json={}, field="items"),
    BadInput("batch too long", "/memory/actions", 422, "invalid_request", json={"items": [{"content": "x"}] * 1001}, field="items"),
    BadInput(
        "batch of two agents",
        "/memory/actions",
        422,
        "invalid_request",
        json={"items": [{"content": "x", "agent_id": "a"}, {"content": "x", "agent_id": "b"}]},
    ),
    BadInput(
        "batch with a header key",
        "/memory/actions",
        422,
        "invalid_request",
        json={"items": [{"content": "x"}]},
        headers=(("Idempotency-Key", "k"),),
    ),
    BadInput(
        "batch with bad items",
        "/memory/actions",
        422,
        "invalid_items",
        json={"items": [{"content": "x"}, {"content": ""}, 3]},
        field="content",
    ),
    _search("query blank", "query", query=" "),
    _search("query missing", "query", query=None),
    _search("query too long", "query", query="q" * 10_001),
    _search("NUL in query", "query", query="a\0b"),
    _search("limit 0", "limit", limit=0),
    _search("limit -1", "limit", limit=-1),
    _search("limit 101", "limit", limit=101),
    _search("limit text", "limit", limit="10"),
    _search("limit 2^64", "limit", limit=2**64 - 1),
    _search("limit 1.5", "limit", limit=1.5),
    _search("mode unknown", "mode", mode="magic"),
    _search("min_score 2", "min_score", min_score=2),
    _search("memory types empty", "memory_types", memory_types=[]),
    _search("memory type unknown", "memory_types.0", memory_types=["dream"]),
    _search("filter unknown", "filters.tag", filters={"tag": "x"}),
    _search("filter time bad", "filters.occurred_after", filters={"occurred_after": "soon"}),
    _search("NUL in filter", "filters.metadata", filters={"metadata": {"a": "\0"}}),
    _search("recency weight -1", "recency_weight", recency_weight=-1),
    _search("projects differ", None, project="a", filters={"project": "b"}),
    _get("recent limit 0", "/memory/episodic/recent?limit=0", field="limit"),
    _get("recent limit -1", "/memory/episodic/recent?limit=-1", field="limit"),
    _get("recent limit 101", "/memory/episodic/recent?limit=101", field="limit"),
    _get("recent limit abc", "/memory/episodic/recent?limit=abc", field="limit"),
    _get("recent limit of 5,000 digits", "/memory/episodic/recent?limit=" + "9" * 5000, field="limit"),
    _get("recent unknown parameter", "/memory/episodic/recent?offset=1", field="offset"),
    _get("recent repeated parameter", "/memory/episodic/recent?limit=1&limit=2", field="limit"),
    _get("list repeated parameter", "/memory/episodic?order=newest&order=oldest", field="order"),
    _get("repeated agent", "/stats?agent_id=a&agent_id=b", field="agent_id"),
    _get("health unknown parameter", "/health?component=worker", field="component"),
    _get("metrics unknown parameter", "/metrics?name=up", field="name"),
    BadInput("store with a parameter", "/memory/action?agent_id=ada", 422, "invalid_request", json={"content": "x"}, field="agent_id"),
    _get("recent NUL in session", "/memory/episodic/recent?session_id=a%00b", field="session_id"),
    _get("recent blank tag", "/memory/episodic/recent?tags=a&tags=%20", field="tags.1"),
    _get("recent bad agent", "/memory/episodic/recent?agent_id=a%2Fb", field="agent_id"),
    _get("stats of agents for an agent", "/stats?per_agent=true"),
    _get("stats per agent maybe", "/stats?per_agent=maybe", field="per_agent"),
    _get("bad id", "/memory/episodic/not-a-uuid", field="episode_id"),
    _get("id with NUL", "/memory/episodic/a%00b", field="episode_id"),
    _get("unknown id", f"/memory/episodic/{ID}", 404, "not_found"),
    _get("unknown route", "/memory/nothing", 404, "not_found"),
    _get("wrong method", "/memory/action", 405, "method_not_allowed"),
    _get("list limit 0", "/memory/episodic?limit=0", field="limit"),
    _get("list limit 101", "/memory/episodic?limit=101", field="limit"),
    _get("list of unknown order", "/memory/episodic?order=random", field="order"),
    _get("list cursor that is no base64", "/memory/episodic?cursor=%25%25", field="cursor"),
    _get("list cursor that is no JSON", "/memory/episodic?cursor=AAAA", field="cursor"),
    _get("list cursor of nothing", "/memory/episodic?cursor=", field="cursor"),
    _get("list cursor that is a number", "/memory/episodic?cursor=MQ", field="cursor"),
    _get("list metadata that is no JSON", "/memory/episodic?metadata=kind", field="metadata"),
    _get("list metadata that is no object", "/memory/episodic?metadata=[1]", field="metadata"),
    _get("list importance NaN", "/memory/episodic?min_importance=nan", field="min_importance"),
    _get("list time that is a number", "/memory/episodic?occurred_after=5", field="occurred_after"),
    _get("list unknown filter", "/memory/episodic?tag=a", field="tag"),
    _get("context of a negative number", f"/memory/episodic/{ID}/context?before=-1", field="before"),
    _get("context of too many", f"/memory/episodic/{ID}/context?after=101", field="after"),
    _get("context of an unknown id", f"/memory/episodic/{ID}/context", 404, "not_found"),
    _get("projects with a parameter", "/projects?name=a", field="name"),
    _patch("change of nothing"),
    _patch("change of the version alone", expected_version=1),
    _patch("change to blank content", "content", content=" \n"),
    _patch("change to no content", "content", content=None),
    _patch("change to long content", "content", 413, "content_too_large", content="x" * 200_001),
    _patch("change to no tags at all", "tags", tags=None),
    _patch("change of the id", "episode_id", episode_id=ID),
    _patch("change of the version", "version", version=2),
    _patch("change with content in details", "action_details", action_details={"content": "x"}),
    _patch("change of an unknown id", None, 404, "not_found", tags=[]),
    BadInput("delete an unknown id", f"/memory/episodic/{ID}", 404, "not_found", method="DELETE"),
    _context("context that lives no second", "ttl_seconds", ttl_seconds=0),
    _context("context that lives beyond a year", "ttl_seconds", ttl_seconds=31_536_001),
    _context("context that lives half a second", "ttl_seconds", ttl_seconds=0.5),
    _context("context of unknown priority", "priority", priority="urgent"),
    _context("context of no object", "active_content", active_content=[1]),
    _context("context with NUL", "active_content", active_content={"a": "\0"}),
    _context("context too large", "active_content", active_content={"a": "x" * 65_536}),
    _context("context with a blank type", "context_type", context_type=" "),
    _context("context with a colon in its id", "context_id", path="/memory/working/a:b"),
    _context("context with a space in its id", "context_id", path="/memory/working/a%20b"),
    _context("context with a long id", "context_id", path="/memory/working/" + "x" * 257),
    BadInput(
        "context whose id is a step in a path",
        "/memory/working",
        422,
        "invalid_request",
        json={"active_content": {}, "context_id": ".."},
        field="context_id",
    ),
    _context("context with an id in the body", "context_id", context_id="d"),
    _get("working list of unknown priority", "/memory/working?priority=urgent", field="priority"),
    _get("working list with another list's cursor", "/memory/working?cursor=WyJhIixbXV0", field="cursor"),
    _get("unknown context", "/memory/working/none", 404, "not_found"),
    _get("context whose id is this place in a path", "/memory/working/%2E", field="context_id"),
    _get("query that is no UTF-8", "/memory/episodic?actor=%ff"),
    _verify("neither receipts nor range"),
    _verify("receipts and range", receipts=[RECEIPT], first_seq=1, last_seq=2),
    _verify("half a range", first_seq=1),
    _verify("range backwards", first_seq=2, last_seq=1),
    _verify("range too long", first_seq=1, last_seq=10_001),
    _verify("seq 0", "first_seq", first_seq=0, last_seq=1),
    _verify("seq 2^63", "last_seq", first_seq=1, last_seq=2**63),
    _verify("no receipts", "receipts", receipts=[]),
    _verify("receipt of bad hash", "receipts.0.content_sha256", receipts=[RECEIPT | {"content_sha256": "xyz"}]),
    _verify("receipt of bad id", "receipts.0.episode_id", receipts=[RECEIPT | {"episode_id": 5}]),
    _verify("receipt with unknown field", "receipts.0.proof", receipts=[RECEIPT | {"proof": 1}]),
]
