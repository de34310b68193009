"""Traces: what a request began is followed through its queue rows to the first attempt at each vector. Nothing is kept without OTLP."""

import os
import threading
from collections.abc import Iterable, Mapping

import structlog
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NoOpTracer, Span, SpanKind, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.config import Settings

_log = structlog.get_logger(__name__)

Value = str | int
Attributes = Mapping[str, Value]

_PROPAGATOR = TraceContextTextMapPropagator()
_STOP_SECONDS = 3.0

# A tracer of no provider makes spans that only carry their parent's identity on, at the cost of a small object.
_tracer: Tracer = NoOpTracer()
_provider: TracerProvider | None = None


def configure(settings: Settings, process: str) -> None:
    """Export this process's spans to the settings' OTLP endpoint; without one, do nothing. Call it after the last fork.

    Args:
        settings: Where to.
        process: What the process is, as in its logs.
    """
    if not settings.otel_exporter_otlp_endpoint:
        return
    # Takes a third of a second, and most installations do not need it.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    try:
        exporter = OTLPSpanExporter(endpoint=settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces", timeout=5)
        install(BatchSpanProcessor(exporter), process)
    except Exception as error:  # noqa: BLE001
        # Whatever the SDK's own variables say wrongly: a process without traces is worth more than none.
        _log.error("tracing_not_started", error=type(error).__name__, action="look at the variables of OpenTelemetry, OTEL_*; work goes on")


def install(processor: SpanProcessor, process: str) -> None:
    """Give this process's spans to a processor from now on, and to no other."""
    global _tracer, _provider
    stop()
    resource = Resource.create({"service.name": f"nexus-{process}", "service.namespace": "nexus-cerebro"})
    # A caller's traceparent comes before its key is looked at: it may say what a request belongs to, not whether it is recorded.
    sampler = None if os.environ.get("OTEL_TRACES_SAMPLER") else ALWAYS_ON
    # stop() does what the SDK would do at exit, and waits for three seconds at most.
    _provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
    _provider.add_span_processor(processor)
    _tracer = _provider.get_tracer("nexus-cerebro")


def stop() -> None:
    """Send what is left and stop tracing; a collector that is silent is not waited for longer than three seconds."""
    global _tracer, _provider
    provider, _provider, _tracer = _provider, None, NoOpTracer()
    if provider is not None:
        last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(_STOP_SECONDS)


def _context_of(traceparent: str | None) -> Context:
    """Return the context that a traceparent names; an empty one for None or what is not well formed."""
    return _PROPAGATOR.extract({"traceparent": traceparent} if traceparent else {}, Context())


def traceparent_of(span: Span) -> str | None:
    """Return the W3C form of a span's identity; None when it has none, because nothing is traced."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span, Context()))
    return carrier.get("traceparent")


def trace_id_of(span: Span) -> str | None:
    """Return the 32 hexadecimal digits of a span's trace; None when it has none, because nothing is traced."""
    identity = span.get_span_context()
    return f"{identity.trace_id:032x}" if identity.is_valid else None


def trace_id_in(traceparent: str) -> str | None:
    """Return the 32 hexadecimal digits of the trace that a traceparent names; None when it is not well formed."""
    return trace_id_of(get_current_span(_context_of(traceparent)))


def begin_request(method: str, traceparent: str | None) -> Span:
    """Begin the span of a request, under its caller's if that sent one; whoever begins it ends it."""
    return _tracer.start_span(method, _context_of(traceparent), SpanKind.SERVER, {"http.request.method": method})


def begin_batch(attributes: Attributes) -> Span:
    """Begin the span of a batch of rows, a trace of its own; whoever begins it ends it."""
    return _tracer.start_span("embed batch", Context(), SpanKind.CONSUMER, dict(attributes))


def begin_attempt(traceparent: str, attempt: int, batch: Span, attributes: Attributes) -> Span:
    """Begin the span of an attempt at one row; whoever begins it ends it.

    The first attempt continues the trace of what made the row. A later one may come hours after, so it begins a trace of its own
    that links to it. Both link to their batch.

    Args:
        traceparent: What made the row.
        attempt: Counts from 1.
        batch: The batch that the row is worked on in.
        attributes: Never content.

    Source: ADR 13.
    """
    origin = _context_of(traceparent)
    links = _links([batch] if attempt == 1 else [get_current_span(origin), batch])
    parent = origin if attempt == 1 else Context()
    return _tracer.start_span("embed episode", parent, SpanKind.CONSUMER, {**attributes, "nexus.attempt": attempt}, links)


def _links(spans: Iterable[Span]) -> list[Link]:
    return [Link(span.get_span_context()) for span in spans if span.get_span_context().is_valid]
