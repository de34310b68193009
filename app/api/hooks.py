"""What happens around every request: its id, its access line, its metrics, its security headers."""

import time

import structlog
from flask import Flask, Response, g, request
from opentelemetry.trace import Span, Status, StatusCode

from app.observability import context, metrics, tracing
from app.security_headers import SECURITY_HEADERS


def _begin() -> None:
    g.started = time.perf_counter()
    g.request_id = context.accept_request_id(request.headers.get("X-Request-ID"))
    context.start(g.request_id)
    g.span = tracing.begin_request(metrics.known_method(request.method), request.headers.get("traceparent"))
    if (trace_id := tracing.trace_id_of(g.span)) is not None:
        context.add(trace_id=trace_id)


def _finish(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    if "Content-Security-Policy" in response.headers:  # The page of the documentation has headers of its own.
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
    else:
        response.headers.extend(SECURITY_HEADERS)
    seconds = time.perf_counter() - g.started
    rule = request.url_rule.rule if request.url_rule is not None else None
    structlog.get_logger().info(
        "request",
        method=metrics.known_method(request.method),
        url_rule=rule or metrics.UNMATCHED_RULE,
        status=response.status_code,
        duration_ms=round(seconds * 1000, 2),
    )
    _end_span(g.span, rule, response.status_code)
    return response


def _end_span(span: Span, rule: str | None, status: int) -> None:
    """End the request's span with the names of OpenTelemetry's semantic conventions for HTTP servers."""
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("nexus.request_id", g.request_id)
    if rule is not None:
        span.update_name(f"{metrics.known_method(request.method)} {rule}")
        span.set_attribute("http.route", rule)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def install(app: Flask) -> None:
    """Wrap every request; this must come before any other before_request hook."""
    app.before_request(_begin)
    app.after_request(_finish)
    # What gunicorn says on this thread afterwards belongs to no request.
    app.teardown_request(lambda _error: context.clear())
