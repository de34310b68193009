"""What goes through the HTTP layer unchanged, and the shape of every answer."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import BaseModel

from app.errors import Conflict, DatabaseUnavailable, Gone, IdempotencyMismatch
from app.factory import Application
from tests.api.doubles import Doubles

ALICE = {"X-API-Key": "nxs_agent_alice"}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _store(layer: FlaskClient, **body: Any) -> Any:
    return layer.post("/memory/action", data=json.dumps(body), content_type="application/json", headers=ALICE)


def _last(doubles: Doubles) -> Any:
    return doubles.episodes.stored[-1][1]


def test_receipt_has_the_published_shape(layer: FlaskClient) -> None:
    answer = _store(layer, content="hola ñandú 🦤")
    receipt = answer.get_json()
    assert answer.status_code == 201
    assert answer.content_type == "application/json"
    assert set(receipt) == {"episode_id", "seq", "version", "agent_id", "content_sha256", "nonce", "created_at", "embedding"}
    assert receipt["embedding"] == {"state": "pending"}
    assert answer.headers["Location"].endswith(f"/memory/episodic/{receipt['episode_id']}")
    assert datetime.fromisoformat(receipt["created_at"]).tzinfo is not None


@pytest.mark.parametrize("content", ["  kept as sent \n", "e\u0301", "𝕏🦤", 'quo"te\\', "\u202eabc", "a\r\nb\x07", "x" * 200_000])
def test_content_passes_byte_for_byte(content: str, layer: FlaskClient, doubles: Doubles) -> None:
    assert _store(layer, content=content).status_code == 201
    assert _last(doubles).content == content


def test_top_level_content_wins_over_details(layer: FlaskClient, doubles: Doubles) -> None:
    _store(layer, content="outer", action_details={"content": "inner", "file": "a.py"})
    assert _last(doubles).content == "outer"
    assert _last(doubles).action_details == {"content": "inner", "file": "a.py"}


def test_content_in_details_is_taken_and_kept_once(layer: FlaskClient, doubles: Doubles) -> None:
    _store(layer, action_details={"content": "inner", "file": "a.py"})
    assert (_last(doubles).content, _last(doubles).action_details) == ("inner", {"file": "a.py"})


def test_long_content_in_details_is_not_counted_as_details(layer: FlaskClient, doubles: Doubles) -> None:
    assert _store(layer, action_details={"content": "ñ" * 200_000}).status_code == 201
    assert len(_last(doubles).content) == 200_000


def test_without_content_type_and_details_are_written_out(layer: FlaskClient, doubles: Doubles) -> None:
    details = {"file": "ñ.py", "lines": 3, "ok": True, "error": None, "args": {"deep": [1, "two"]}, "content": ["not", "text"]}
    _store(layer, action_type="edit", action_details=details)
    assert _last(doubles).content.splitlines() == [
        "edit",
        "file: ñ.py",
        "lines: 3",
        "ok: true",
        "error: null",
        'args: {"deep":[1,"two"]}',
        'content: ["not","text"]',
    ]
    assert _last(doubles).action_details == details


def test_naive_time_is_utc_and_offsets_are_converted(layer: FlaskClient, doubles: Doubles) -> None:
    for sent, kept in (
        ("2026-01-31T12:00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ):
        assert _store(layer, content="x", occurred_at=sent).status_code == 201
        assert _last(doubles).occurred_at == kept


def test_request_digest_ignores_order_defaults_agent_and_key(layer: FlaskClient, doubles: Doubles) -> None:
    _store(layer, content="x", metadata={"b": 1, "a": {"d": 1, "c": 2}}, idempotency_key="k")
    _store(layer, metadata={"a": {"c": 2, "d": 1}, "b": 1}, content="x", tags=[], importance_score=0.5, agent_id="alice")
    _store(layer, content="x", metadata={"b": 2, "a": {"d": 1, "c": 2}})
    first, second, third = (episode.request_sha256 for _, episode in doubles.episodes.stored)
    assert first == second != third
    assert len(first) == 32


def test_idempotency_key_comes_from_header_or_body(layer: FlaskClient, doubles: Doubles) -> None:
    layer.post("/memory/action", json={"content": "x"}, headers=ALICE | {"Idempotency-Key": "from header"})
    layer.post("/memory/action", json={"content": "x", "idempotency_key": "both"}, headers=ALICE | {"Idempotency-Key": "both"})
    _store(layer, content="x", idempotency_key="llave ñ")
    assert [episode.idempotency_key for _, episode in doubles.episodes.stored] == ["from header", "both", "llave ñ"]


def test_traceparent_is_passed_on_only_when_well_formed(layer: FlaskClient, doubles: Doubles) -> None:
    for value in (TRACEPARENT, "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff" + TRACEPARENT[2:], TRACEPARENT.upper(), "x"):
        layer.post("/memory/action", json={"content": "x"}, headers=ALICE | {"traceparent": value})
    assert doubles.episodes.traceparents == [TRACEPARENT, None, None, None, None]


def test_request_id_is_kept_when_well_formed_else_replaced(layer: FlaskClient) -> None:
    assert layer.get("/health/live", headers={"X-Request-ID": "job-7.a_b"}).headers["X-Request-ID"] == "job-7.a_b"
    for bad in ("a b", "x" * 65, "", "é", "a;b"):
        given = layer.get("/health/live", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert given != bad
        assert len(given) == 32


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (IdempotencyMismatch("other body"), 409, "idempotency_key_reused"),
        (Conflict("taken"), 409, "conflict"),
        (Gone("deleted"), 410, "gone"),
        (DatabaseUnavailable("down"), 503, "database_unavailable"),
        (ZeroDivisionError("the launch code is 0451"), 500, "internal_error"),
    ],
)
def test_service_error_becomes_a_problem(error: Exception, status: int, code: str, layer: FlaskClient, doubles: Doubles) -> None:
    doubles.episodes.failure = error
    answer = _store(layer, content="x")
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert answer.content_type == "application/problem+json"
    assert answer.headers["X-Request-ID"]
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert "0451" not in answer.get_data(as_text=True)


def test_wrong_method_names_the_right_ones(layer: FlaskClient) -> None:
    answer = layer.delete("/memory/search", headers=ALICE)
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(("status", "code", "ready"), [("healthy", 200, 200), ("degraded", 200, 200), ("unhealthy", 503, 503)])
def test_health_status_decides_the_http_status(status: str, code: int, ready: int, layer: FlaskClient, doubles: Doubles) -> None:
    doubles.health.status = status
    for answer, expected in ((layer.get("/health", headers=ALICE), code), (layer.get("/health/ready"), ready)):
        assert answer.status_code == expected
        assert ("Retry-After" in answer.headers) is (expected == 503)
    assert layer.get("/health/live").status_code == 200


def test_verify_counts_verdicts(layer: FlaskClient) -> None:
    receipt = _store(layer, content="x").get_json()
    answer = layer.post("/integrity/verify", json={"receipts": [receipt]}, headers=ALICE).get_json()
    assert answer["summary"] == {"searchable": 1}
    assert answer["verdicts"][0]["episode_id"] == receipt["episode_id"]


def test_answers_carry_security_headers(layer: FlaskClient) -> None:
    for path in ("/health/live", "/nothing", "/stats"):
        headers = layer.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_docs_page_loads_only_what_this_server_ships(layer: FlaskClient) -> None:
    page = layer.get("/docs").get_data(as_text=True)
    assert "http" not in page
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f"/docs/{asset}" in page
        assert layer.get(f"/docs/{asset}").status_code == 200
    assert layer.get("/docs/other.js").status_code == 404


def test_openapi_describes_every_route_with_its_errors(layer: FlaskClient, layer_app: Application) -> None:
    description = layer.get("/openapi.json").get_json()
    assert description["openapi"].startswith("3.1")
    documented = {(method.upper(), path) for path, item in description["paths"].items() for method in item}
    routes = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in layer_app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.endpoint.startswith(("docs.", "console."))
    }
    assert documented == routes
    store = description["paths"]["/memory/action"]["post"]
    assert {"200", "201", "400", "401", "403", "409", "410", "413", "415", "422", "503"} <= set(store["responses"])
    assert {parameter["name"] for parameter in store["parameters"]} == {"X-Agent-Id", "Idempotency-Key"}
    assert store["security"] == [{"ApiKey": []}, {"Bearer": []}]
    references = json.dumps(description)
    for name in description["components"]["schemas"]:
        assert name in references
    assert "Problem" in description["components"]["schemas"]


def test_metrics_count_by_rule_with_bounded_labels(layer: FlaskClient) -> None:
    for number in range(5):
        layer.get(f"/nothing/{number}")
        layer.get(f"/memory/episodic/{number:032x}", headers=ALICE)
    layer.open("/nothing", method="BREW")
    text = layer.get("/metrics").get_data(as_text=True)
    assert 'api_requests_total{method="GET",status="404",url_rule="/memory/episodic/<episode_id>"}' in text
    assert 'method="OTHER",status="404",url_rule="(unmatched)"' in text
    assert "/nothing" not in text
    assert "BREW" not in text
    assert 'api_latency_seconds_bucket{le="0.002",method="GET"' in text
    assert 'embeddings_queue_depth{state="pending"} 2.0' in text
    assert "embeddings_oldest_pending_age_seconds 1.5" in text
    assert "accounting_identity_drift 0.0" in text
    assert 'reconciliation_drift_found_total{drift="stale",kind="working"} 2.0' in text
    assert 'reconciliation_drift_repaired_total{drift="stale",kind="working"} 1.0' in text
    assert 'reconciliation_last_success_timestamp_seconds{kind="working"} 1.5' in text
    assert "embeddings_workers_alive 2.0" in text
    assert "embeddings_dispatchers_alive 1.0" in text
    assert 'embeddings_processed_total{target_kind="episodic"} 5.0' in text
    assert 'embeddings_dead_total{cause="encoder_error"} 1.0' in text
    assert 'embeddings_processing_latency_bucket{le="0.25",target_kind="episodic"} 0.0' in text
    assert 'embeddings_processing_latency_bucket{le="0.5",target_kind="episodic"} 5.0' in text
    assert 'embeddings_time_to_searchable_seconds_bucket{le="+Inf",target_kind="episodic"} 5.0' in text
    assert 'embeddings_time_to_searchable_seconds_sum{target_kind="episodic"} 2.5' in text
    assert "embeddings_workers_advised 3.0" in text
    assert "nexus_database_up 1.0" in text


def test_metrics_survive_a_database_that_is_down(layer: FlaskClient, doubles: Doubles) -> None:
    doubles.stats.is_down = True
    answer = layer.get("/metrics")
    assert answer.status_code == 200
    text = answer.get_data(as_text=True)
    assert "nexus_database_up 0.0" in text
    assert "embeddings_queue_depth{" not in text


def test_no_two_models_of_one_name_stand_in_the_description() -> None:
    """Of two, the description would keep one, and the other's routes would promise what they do not answer."""
    names: dict[str, set[type]] = {}
    for module in (sys.modules[name] for name in sorted(sys.modules) if name.startswith("app.api.schemas.")):
        for name, model in vars(module).items():
            if isinstance(model, type) and issubclass(model, BaseModel):
                names.setdefault(name, set()).add(model)
    assert len(names) > 40
    assert {name for name, models in names.items() if len(models) > 1} == set()
