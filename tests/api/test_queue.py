"""The queue over HTTP: who sees it, what it shows, what a replay takes and says."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient

from app.api.schemas.queue import QueueAnswer
from app.queue.dead import DeadSelection
from tests.api.conftest import Caller
from tests.api.doubles import Doubles
from tests.factories.statements import Sql

OPERATOR = {"X-API-Key": "nxs_operator_key"}
ID = "7b0c4f9a-3c1d-4a57-9d7e-0d3a6b6f0a11"
SECRET = "the launch code is 0451"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": [ID], "cause": "a"},
        {"ids": [ID], "all": True},
        {"cause": "a", "all": True},
        {"ids": [ID], "cause": "a", "all": True},
        {"all": False},
        {"all": "yes"},
        {"ids": []},
        {"ids": ["not-an-id"]},
        {"ids": [ID] * 10_001},
        {"cause": ""},
        {"cause": "x" * 501},
        {"cause": "a\0"},
        {"all": True, "limit": 0},
        {"all": True, "limit": 10_001},
        {"all": True, "limit": "5"},
        {"all": True, "since": "yesterday"},
    ],
    ids=lambda body: ",".join(body) or "nothing",
)
def test_replay_of_none_two_or_wrong_selections_is_refused(body: dict[str, Any], layer: FlaskClient, doubles: Doubles) -> None:
    answer = layer.post("/queue/dead/replay", json=body, headers=OPERATOR)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_request")
    assert doubles.dead_rows.replays == []


@pytest.mark.parametrize(
    ("body", "selection", "most"),
    [
        ({"ids": [ID]}, DeadSelection(ids=(UUID(ID),)), 10_000),
        ({"cause": "a: B", "limit": 7}, DeadSelection(cause="a: B"), 7),
        ({"all": True, "ids": None}, DeadSelection(), 10_000),
    ],
    ids=["ids", "cause", "all"],
)
def test_replay_reaches_the_service_with_who_asks(
    body: dict[str, Any], selection: DeadSelection, most: int, layer: FlaskClient, doubles: Doubles
) -> None:
    answer = layer.post("/queue/dead/replay", json=body, headers=OPERATOR)
    assert (answer.status_code, answer.get_json()) == (200, {"replayed": 0, "remaining": 0})
    assert doubles.dead_rows.replays == [(selection, most, UUID(int=1))]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "cursor=1", "cause=", "cause=a%00", "after=1"])
def test_bad_page_of_dead_rows_is_refused(query: str, layer: FlaskClient, doubles: Doubles) -> None:
    answer = layer.get(f"/queue/dead/rows?{query}", headers=OPERATOR)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_request")
    assert doubles.dead_rows.pages == []


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("GET", "/queue?lane=low&verbose", "lane"),
        ("GET", "/queue/dead?limit=1", "limit"),
        ("GET", "/integrity?agent_id=ada", "agent_id"),
        ("POST", "/queue/dead/replay?limit=1", "limit"),
    ],
)
def test_parameter_that_a_route_would_ignore_is_refused_by_name(
    method: str, path: str, field: str, layer: FlaskClient, doubles: Doubles
) -> None:
    answer = layer.open(path, method=method, json={"all": True} if method == "POST" else None, headers=OPERATOR)
    body = answer.get_json()
    assert (answer.status_code, body["code"]) == (422, "invalid_request")
    assert body["errors"][0] | {"message": ""} == {"field": field, "code": "unknown_field", "message": ""}
    assert doubles.dead_rows.replays == []


def test_queue_has_the_published_shape(layer: FlaskClient) -> None:
    body = layer.get("/queue", headers=OPERATOR).get_json()
    assert QueueAnswer.model_validate_json(json.dumps(body), strict=True, extra="forbid")
    assert body["advice"]["workers_advised"] == 3


def test_operator_sees_the_queue_and_replays_without_reading_content(alice: Caller, caller: Callable[..., Caller], sql: Sql) -> None:
    operator = caller("operator")
    stored = alice.post("/memory/actions", {"items": [{"content": f"{SECRET} {number}"} for number in range(3)]}).get_json()["items"]
    cause = "encoder_failed: RuntimeError"
    sql("UPDATE memory_system.embeddings_queue SET state = 'dead', retry_count = 5, last_error = %s, processed_at = now()", cause)
    answers = [operator.get(path) for path in ("/queue", "/queue/dead", f"/queue/dead/rows?cause={cause}&limit=2")]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert not any(SECRET in answer.get_data(as_text=True) for answer in answers)
    queue, causes, page = (answer.get_json() for answer in answers)
    assert (queue["dead"], queue["pending"]) == (3, 0)
    assert (causes["total"], causes["causes"][0]["cause"], causes["causes"][0]["rows"]) == (3, cause, 3)
    assert causes["causes"][0]["last_dead_at"].endswith("Z")
    assert len(page["items"]) == 2
    rest = operator.get(f"/queue/dead/rows?cause={cause}&limit=2&cursor={page['next_cursor']}").get_json()
    assert {row["target_id"] for row in (*page["items"], *rest["items"])} == {receipt["episode_id"] for receipt in stored}
    assert rest["next_cursor"] is None
    one = operator.post("/queue/dead/replay", {"ids": [stored[0]["episode_id"], ID]}).get_json()
    assert one == {"replayed": 1, "remaining": 0}
    assert operator.post("/queue/dead/replay", {"all": True, "limit": 1}).get_json() == {"replayed": 1, "remaining": 1}
    assert operator.post("/queue/dead/replay", {"cause": cause}).get_json() == {"replayed": 1, "remaining": 0}
    assert operator.get("/queue").get_json()["pending"] == 3
    assert alice.get("/queue").status_code == 403
    assert alice.get(f"/memory/episodic/{stored[0]['episode_id']}").get_json()["embedding"]["state"] == "pending"
