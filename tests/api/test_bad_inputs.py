"""Every bad input is refused with 4xx, its code and its field, before any service sees it."""

import io
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient

from tests.api.bad_inputs import BAD_INPUTS, BadInput
from tests.api.doubles import Doubles


@pytest.mark.parametrize("case", BAD_INPUTS, ids=lambda case: case.name)
def test_bad_input_is_refused_with_status_code_and_field(case: BadInput, layer: FlaskClient, doubles: Doubles) -> None:
    key = "nxs_admin_key" if case.code == "agent_mismatch" else "nxs_agent_alice"
    headers = {"X-API-Key": key, **dict(case.headers)}
    if case.method in ("POST", "PATCH", "PUT"):
        headers["Content-Type"] = case.content_type
    data = orjson.dumps(case.json) if case.data is None and case.json is not None else case.data
    answer = layer.open(case.path, method=case.method, data=data, headers=headers)
    body = answer.get_json(force=True)
    assert (answer.status_code, body["code"]) == (case.status, case.code), body
    assert answer.content_type == "application/problem+json"
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["status"] == case.status
    assert body["title"]
    assert body["type"]
    assert body["detail"]
    if case.field is not None:
        assert case.field in [error["field"] for error in body["errors"]], body
    assert doubles.episodes.stored == []
    assert doubles.search.queries == []


def test_table_covers_forty_cases_with_distinct_names() -> None:
    assert len({case.name for case in BAD_INPUTS}) == len(BAD_INPUTS) >= 40


def test_batch_names_every_bad_index_and_stores_nothing(layer: FlaskClient, doubles: Doubles) -> None:
    items: list[object] = [{"content": f"item {index}"} for index in range(60)]
    items[3] = {"content": " "}
    items[17] = {"content": "x", "importance_score": 7, "colour": "red"}
    items[59] = "text"
    answer = layer.post("/memory/actions", json={"items": items}, headers={"X-API-Key": "nxs_agent_alice"})
    assert answer.status_code == 422
    errors = answer.get_json()["errors"]
    assert sorted({error["index"] for error in errors}) == [3, 17, 59]
    assert {(error["field"], error["code"]) for error in errors if error["index"] == 17} == {
        ("importance_score", "less_than_equal"),
        ("colour", "unknown_field"),
    }
    assert doubles.episodes.stored == []


def test_answer_to_bad_input_never_quotes_the_input(layer: FlaskClient) -> None:
    body = {"content": "the launch code is 0451\0", "session_id": ["the launch code is 0451"]}
    answer = layer.post("/memory/action", json=body, headers={"X-API-Key": "nxs_agent_alice"})
    assert answer.status_code == 422
    assert "0451" not in answer.get_data(as_text=True)


def test_oversized_body_without_a_length_is_refused(layer: FlaskClient, doubles: Doubles) -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:] = b"x" * len(buffer)
            return len(buffer)

    answer = layer.post(
        "/memory/action",
        environ_overrides={"wsgi.input": Endless(), "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
        headers={"X-API-Key": "nxs_agent_alice", "Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    assert answer.get_json()["code"] == "body_too_large"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("place", ["/memory/working/", "/consciousness/blocks/"])
def test_path_that_is_no_utf_8_is_not_taken_for_another_name(place: str, method: str, layer: FlaskClient) -> None:
    # As gunicorn hands %ff on; the test client would put the sign for what cannot be read in its place itself.
    path = {"PATH_INFO": f"{place}\xff"}
    body: Any = None if method != "PUT" else {"value": "x"} if "blocks" in place else {"active_content": {}}
    answer = layer.open(place, method=method, headers={"X-API-Key": "nxs_agent_alice"}, environ_overrides=path, json=body)
    assert (answer.status_code, answer.get_json()["code"], answer.get_json()["detail"]) == (422, "invalid_request", "the path is not UTF-8")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/docs"])
def test_probe_may_add_a_query_that_is_no_utf_8(path: str, layer: FlaskClient) -> None:
    assert layer.get(f"{path}?x=%ff").status_code == layer.get(path).status_code == 200
