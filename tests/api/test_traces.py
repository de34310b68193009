"""One trace from a request through the queue row to the first attempt; later attempts link to it."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from app.config import Settings
from app.observability import tracing
from tests.api.conftest import Caller
from tests.factories.encoder import FakeEncoder
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SECRET = "the launch code is 0451"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Every span of this process, once it has ended."""
    exporter = InMemorySpanExporter()
    tracing.install(SimpleSpanProcessor(exporter), "test")
    yield exporter
    tracing.stop()


def _named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def _attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_first_attempt_continues_the_trace_of_the_request_that_stored_the_episode(
    alice: Caller, workshop: Workshop, spans: InMemorySpanExporter
) -> None:
    receipt = alice.post("/memory/action", {"content": SECRET}, traceparent=CALLER).get_json()
    assert workshop.drain() == 1
    (request,) = _named(spans, "POST /memory/action")
    (attempt,) = _named(spans, "embed episode")
    (batch,) = _named(spans, "embed batch")
    assert f"{request.context.trace_id:032x}" == CALLER.split("-")[1]
    assert request.parent is not None and f"{request.parent.span_id:016x}" == CALLER.split("-")[2]
    assert attempt.parent is not None and attempt.parent.span_id == request.context.span_id
    assert attempt.context.trace_id == request.context.trace_id != batch.context.trace_id
    assert [link.context.span_id for link in attempt.links] == [batch.context.span_id]
    assert (request.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.CONSUMER)
    assert _attributes(attempt) == {
        "nexus.target_kind": "episodic",
        "nexus.target_id": receipt["episode_id"],
        "nexus.attempt": 1,
        "nexus.outcome": "done",
    }
    assert _attributes(request)["http.route"] == "/memory/action"
    assert _attributes(request)["http.response.status_code"] == 201
    assert not any(SECRET in span.to_json() for span in spans.get_finished_spans())


def test_later_attempt_begins_a_trace_that_links_to_the_first(
    alice: Caller, workshop: Workshop, encoder: FakeEncoder, spans: InMemorySpanExporter
) -> None:
    def fail(texts: object) -> None:
        if SECRET in str(texts):
            raise RuntimeError(SECRET)

    encoder.before = fail
    alice.post("/memory/action", {"content": SECRET})
    assert workshop.drain() == 0
    encoder.before = lambda _: None
    assert workshop.drain(waits=True) == 1
    (request,) = _named(spans, "POST /memory/action")
    first, second = _named(spans, "embed episode")
    assert (first.context.trace_id, second.context.trace_id == first.context.trace_id) == (request.context.trace_id, False)
    assert second.parent is None
    assert request.context.span_id in {link.context.span_id for link in second.links}
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "encoder_error: RuntimeError")
    assert [_attributes(span)["nexus.outcome"] for span in (first, second)] == ["failed", "done"]
    assert not any(SECRET in span.to_json() for span in spans.get_finished_spans())


def test_rows_of_one_request_share_its_trace_and_one_that_is_given_back_says_so(
    alice: Caller, workshop: Workshop, encoder: FakeEncoder, sql: Sql, spans: InMemorySpanExporter
) -> None:
    alice.post("/memory/actions", {"items": [{"content": f"number {n}"} for n in range(5)]})
    encoder.before = lambda _: sql("UPDATE memory_system.embeddings_queue SET claim_token = gen_random_uuid()")
    (batch,) = workshop.claim()
    workshop.process(batch)
    (request,) = _named(spans, "POST /memory/actions")
    attempts = _named(spans, "embed episode")
    assert {span.context.trace_id for span in attempts} == {request.context.trace_id}
    assert [_attributes(span)["nexus.outcome"] for span in attempts] == ["given back"] * 5


def test_failed_request_is_an_error_and_an_unknown_route_has_no_route(alice: Caller, spans: InMemorySpanExporter) -> None:
    alice.get("/no/such/route/secret")
    (span,) = spans.get_finished_spans()
    assert span.name == "GET"
    assert _attributes(span)["http.response.status_code"] == 404
    assert "secret" not in span.to_json()


def test_without_a_collector_nothing_is_kept_and_the_callers_trace_still_reaches_the_queue(alice: Caller, sql: Sql) -> None:
    alice.post("/memory/action", {"content": "one"}, traceparent=CALLER)
    alice.post("/memory/action", {"content": "two"})
    assert sql("SELECT traceparent FROM memory_system.embeddings_queue ORDER BY enqueued_at") == [(CALLER,), (None,)]


def test_caller_cannot_keep_its_request_out_of_the_traces(alice: Caller, spans: InMemorySpanExporter) -> None:
    assert alice.post("/memory/action", {"content": "x"}, traceparent=CALLER.removesuffix("01") + "00").status_code == 201
    assert len(_named(spans, "POST /memory/action")) == 1


def test_wrong_variable_of_the_sdk_costs_the_traces_and_not_the_process(
    database_settings: Settings, monkeypatch: pytest.MonkeyPatch, alice: Caller
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "256")
    with capture_logs() as lines:
        tracing.configure(database_settings.model_copy(update={"otel_exporter_otlp_endpoint": "http://127.0.0.1:1"}), "test")
    assert [line["event"] for line in lines] == ["tracing_not_started"]
    assert alice.post("/memory/action", {"content": "x"}).status_code == 201
    tracing.stop()
