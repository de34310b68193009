"""A collector of traces: takes OTLP over HTTP and keeps every span."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Identity = tuple[str, str]
"""A span's trace id and span id, in hexadecimal digits."""


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it came."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: frozenset[Identity]
    attributes: dict[str, str | int]
    started_ns: int = 0
    ended_ns: int = 0

    @property
    def identity(self) -> Identity:
        """What others name it by."""
        return self.trace_id, self.span_id


def tree(spans: Sequence[ReceivedSpan], trace_id: str) -> str:
    """Return the spans of a trace as people read them: children below their parent, with times since the first began, and links."""
    names = {span.identity: span.name for span in spans}
    of_trace = sorted((span for span in spans if span.trace_id == trace_id), key=lambda span: span.started_ns)
    ids = {span.span_id for span in of_trace}
    lines = []

    def write(span: ReceivedSpan, depth: int) -> None:
        began, took = (span.started_ns - of_trace[0].started_ns) / 1e6, (span.ended_ns - span.started_ns) / 1e6
        title = f"{'   ' * (depth - 1)}{'└─ ' if depth else ''}{span.name}"
        facts = " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in sorted(span.attributes.items()))
        links = "".join(f"  -> {names[link]} (a trace of its own)" for link in sorted(span.links) if link in names)
        lines.append(f"{title:<24}{span.service:<14}{began:>8.1f} ms +{took:.1f} ms  {facts}{links}")
        for child in of_trace:
            if child.parent_id == span.span_id:
                write(child, depth + 1)

    for span in of_trace:
        if span.parent_id not in ids:
            write(span, 0)
    return "\n".join(lines)


class Collector:
    """Listens on a free port of this machine from `start` to `stop`."""

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
        self._lock = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                known = self.path == "/v1/traces"
                if known:
                    collector._take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="collector", daemon=True)

    @property
    def endpoint(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> list[ReceivedSpan]:
        """Return what has come, in its order."""
        with self._lock:
            return list(self._spans)

    def clear(self) -> None:
        """Forget what has come."""
        with self._lock:
            self._spans.clear()

    def _take(self, request: ExportTraceServiceRequest) -> None:
        found = []
        for of_resource in request.resource_spans:
            service = next((a.value.string_value for a in of_resource.resource.attributes if a.key == "service.name"), "")
            for span in (span for scope in of_resource.scope_spans for span in scope.spans):
                attributes: dict[str, str | int] = {
                    a.key: a.value.int_value if a.value.HasField("int_value") else a.value.string_value for a in span.attributes
                }
                links = frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links)
                found.append(
                    ReceivedSpan(
                        service,
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        links,
                        attributes,
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                    )
                )
        with self._lock:
            self._spans.extend(found)
