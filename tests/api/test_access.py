"""Keys, roles and agents: who gets through, and who is told what."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.api.doubles import Doubles

RECEIPTS = {
    "receipts": [
        {"episode_id": "7b0c4f9a-3c1d-4a57-9d7e-0d3a6b6f0a11", "seq": 1, "version": 1, "content_sha256": "0" * 64, "nonce": "ab" * 16}
    ]
}
ID_PATH = "/memory/episodic/7b0c4f9a-3c1d-4a57-9d7e-0d3a6b6f0a11"
SEMANTIC_PATH = "/memory/semantic/7b0c4f9a-3c1d-4a57-9d7e-0d3a6b6f0a11"
KEY_PATH = "/keys/7b0c4f9a-3c1d-4a57-9d7e-0d3a6b6f0a11"
CHECKPOINT_PATH = "/consciousness/checkpoints/7b0c4f9a-3c1d-4a57-9d7e-0d3a6b6f0a11"

ROLES = ("admin", "agent", "readonly", "operator")
KEY_OF_ROLE = {"admin": "nxs_admin_key", "agent": "nxs_agent_alice", "readonly": "nxs_readonly_alice", "operator": "nxs_operator_key"}

# Method, path, body, and the status for each role in the order above.
EXPECTED: list[tuple[str, str, Any, tuple[int, int, int, int]]] = [
    ("POST", "/memory/action", {"content": "x"}, (201, 201, 403, 403)),
    ("POST", "/memory/actions", {"items": [{"content": "x"}]}, (201, 201, 403, 403)),
    ("POST", "/memory/search", {"query": "x"}, (200, 200, 200, 403)),
    ("GET", "/memory/episodic/recent", None, (200, 200, 200, 403)),
    ("GET", ID_PATH, None, (404, 404, 404, 403)),
    ("GET", "/memory/episodic", None, (200, 200, 200, 403)),
    ("GET", f"{ID_PATH}/context", None, (404, 404, 404, 403)),
    ("PATCH", ID_PATH, {"tags": []}, (404, 404, 403, 403)),
    ("DELETE", ID_PATH, None, (404, 404, 403, 403)),
    ("GET", "/projects", None, (200, 200, 200, 403)),
    ("POST", "/memory/working", {"active_content": {}}, (404, 404, 403, 403)),
    ("PUT", "/memory/working/c", {"active_content": {}}, (404, 404, 403, 403)),
    ("GET", "/memory/working/c", None, (404, 404, 404, 403)),
    ("GET", "/memory/working/c?refresh=true", None, (404, 404, 403, 403)),
    ("DELETE", "/memory/working/c", None, (404, 404, 403, 403)),
    ("GET", "/memory/working", None, (200, 200, 200, 403)),
    ("POST", "/memory/semantic", {"concept": "a", "definition": "b"}, (404, 404, 403, 403)),
    ("GET", "/memory/semantic", None, (200, 200, 200, 403)),
    ("GET", SEMANTIC_PATH, None, (404, 404, 404, 403)),
    ("PATCH", SEMANTIC_PATH, {"concept": "a"}, (404, 404, 403, 403)),
    ("DELETE", SEMANTIC_PATH, None, (404, 404, 403, 403)),
    ("POST", "/consciousness/blocks", {"label": "a", "value": "b"}, (404, 404, 403, 403)),
    ("GET", "/consciousness/blocks", None, (200, 200, 200, 403)),
    ("PUT", "/consciousness/blocks/a", {"value": "b"}, (404, 404, 403, 403)),
    ("GET", "/consciousness/blocks/a", None, (404, 404, 404, 403)),
    ("DELETE", "/consciousness/blocks/a", None, (404, 404, 403, 403)),
    ("POST", "/consciousness/checkpoints", {"state_data": {}}, (404, 404, 403, 403)),
    ("GET", "/consciousness/checkpoints", None, (200, 200, 200, 403)),
    ("GET", CHECKPOINT_PATH, None, (404, 404, 404, 403)),
    ("POST", f"{CHECKPOINT_PATH}/restore", {}, (404, 404, 403, 403)),
    ("DELETE", "/agents/alice", None, (404, 404, 403, 403)),
    ("GET", "/export", None, (404, 404, 404, 403)),
    ("POST", "/import", None, (415, 415, 403, 403)),
    ("POST", "/integrity/verify", RECEIPTS, (200, 200, 200, 200)),
    ("GET", "/integrity/heads", None, (404, 404, 404, 404)),
    ("GET", "/integrity/proof/7b0c4f9a-3c1d-4a57-9d7e-0d3a6b6f0a11", None, (404, 404, 404, 404)),
    ("GET", "/integrity", None, (200, 403, 403, 200)),
    ("POST", "/keys", {"role": "admin", "name": "x"}, (404, 403, 403, 403)),
    ("GET", "/keys", None, (200, 403, 403, 403)),
    ("DELETE", KEY_PATH, None, (404, 403, 403, 403)),
    ("POST", f"{KEY_PATH}/rotate", {}, (404, 403, 403, 403)),
    ("GET", "/audit", None, (200, 403, 403, 403)),
    ("GET", "/stats", None, (200, 200, 200, 200)),
    ("GET", "/queue", None, (200, 403, 403, 200)),
    ("GET", "/queue/dead", None, (200, 403, 403, 200)),
    ("GET", "/queue/dead/rows", None, (200, 403, 403, 200)),
    ("POST", "/queue/dead/replay", {"all": True}, (200, 403, 403, 200)),
    ("GET", "/health", None, (200, 200, 200, 200)),
    ("GET", "/metrics", None, (200, 200, 200, 200)),
]
REMOTE = {"REMOTE_ADDR": "203.0.113.9"}


def _call(layer: FlaskClient, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
    return layer.open(path, method=method, json=body, headers=headers, environ_overrides=REMOTE)


@pytest.mark.parametrize(("method", "path", "body", "statuses"), EXPECTED, ids=lambda value: value if isinstance(value, str) else "")
def test_each_role_gets_what_its_permissions_say(method: str, path: str, body: Any, statuses: tuple[int, ...], layer: FlaskClient) -> None:
    for role, status in zip(ROLES, statuses, strict=True):
        headers = {"X-API-Key": KEY_OF_ROLE[role]} | ({"X-Agent-Id": "alice"} if role == "admin" else {})
        assert _call(layer, method, path, body, headers).status_code == status, role


@pytest.mark.parametrize(("method", "path", "body", "statuses"), EXPECTED, ids=lambda value: value if isinstance(value, str) else "")
def test_no_key_or_a_wrong_key_is_401(method: str, path: str, body: Any, statuses: object, layer: FlaskClient) -> None:
    for headers in ({}, {"X-API-Key": "nxs_wrong"}, {"X-API-Key": ""}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer "}):
        answer = _call(layer, method, path, body, headers)
        assert (answer.status_code, answer.get_json()["code"]) == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/docs", "/openapi.json", "/docs/swagger-ui.css"])
def test_open_routes_need_no_key(path: str, layer: FlaskClient) -> None:
    assert layer.get(path, environ_overrides=REMOTE).status_code == 200


def test_bearer_and_header_must_agree(layer: FlaskClient) -> None:
    good = "nxs_agent_alice"
    assert layer.get("/stats", headers={"Authorization": f"Bearer {good}"}).status_code == 200
    assert layer.get("/stats", headers={"Authorization": f"bearer {good}", "X-API-Key": good}).status_code == 200
    assert layer.get("/stats", headers={"Authorization": f"Bearer {good}", "X-API-Key": "nxs_admin_key"}).status_code == 401


def test_metrics_open_to_loopback_unless_forwarded(layer: FlaskClient) -> None:
    for address in ("127.0.0.1", "::1", "127.8.8.8"):
        assert layer.get("/metrics", environ_overrides={"REMOTE_ADDR": address}).status_code == 200
    for header in ("X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via", "X-Real-IP", "CF-Connecting-IP"):
        assert layer.get("/metrics", headers={header: "127.0.0.1"}).status_code == 401
    assert layer.get("/metrics", environ_overrides={"REMOTE_ADDR": ""}).status_code == 401
    assert layer.get("/metrics", headers={"X-API-Key": "nxs_wrong"}).status_code == 401


def test_admin_must_name_an_agent(layer: FlaskClient, doubles: Doubles) -> None:
    headers = {"X-API-Key": "nxs_admin_key"}
    answer = layer.post("/memory/action", json={"content": "x"}, headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "agent_required")
    assert layer.post("/memory/action", json={"content": "x", "agent_id": "bob"}, headers=headers).status_code == 201
    assert layer.post("/memory/action", json={"content": "x"}, headers=headers | {"X-Agent-Id": "carol"}).status_code == 201
    assert layer.post("/memory/actions", json={"items": [{"content": "x", "agent_id": "dave"}]}, headers=headers).status_code == 201
    assert [agent for agent, _ in doubles.episodes.stored] == ["bob", "carol", "dave"]
    assert layer.get("/memory/episodic/recent?agent_id=bob", headers=headers).status_code == 200


def test_bound_key_naming_another_agent_is_403(layer: FlaskClient, doubles: Doubles) -> None:
    headers = {"X-API-Key": "nxs_agent_alice"}
    for answer in (
        layer.post("/memory/action", json={"content": "x", "agent_id": "bob"}, headers=headers),
        layer.post("/memory/action", json={"content": "x"}, headers=headers | {"X-Agent-Id": "bob"}),
        layer.post("/memory/actions", json={"items": [{"content": "x", "agent_id": "bob"}]}, headers=headers),
        layer.post("/memory/search", json={"query": "x", "agent_id": "bob"}, headers=headers),
        layer.get("/memory/episodic/recent?agent_id=bob", headers=headers),
        layer.get("/stats?agent_id=bob", headers=headers),
        layer.post("/integrity/verify", json=RECEIPTS | {"agent_id": "bob"}, headers=headers),
    ):
        assert (answer.status_code, answer.get_json()["code"]) == (403, "permission_denied")
    assert doubles.episodes.stored == []
    assert doubles.stats.agents == []
    assert doubles.integrity.agents == []


def test_verification_and_stats_are_confined_to_the_bound_agent(layer: FlaskClient, doubles: Doubles) -> None:
    for key in ("nxs_agent_alice", "nxs_operator_key"):
        layer.post("/integrity/verify", json={"first_seq": 1, "last_seq": 10}, headers={"X-API-Key": key})
        layer.get("/stats", headers={"X-API-Key": key})
    assert layer.get("/stats?per_agent=true", headers={"X-API-Key": "nxs_agent_alice"}).status_code == 422
    assert doubles.integrity.agents == ["alice", None]
    assert doubles.stats.agents == ["alice", None]
