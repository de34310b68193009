"""The check of I12 bites: a span in the wrong place, and one that never came, are found."""

from uuid import UUID

import pytest

from tests.factories.otlp import Collector, ReceivedSpan
from tests.faults.traces import Traces

ID = UUID("7b0c4f9a-3c1d-4a57-9d7e-0d3a6b6f0a11")
OTHER = "0" * 31 + "1"


def _span(trace_id: str, parent_id: str, attempt: int, links: frozenset[tuple[str, str]] = frozenset()) -> ReceivedSpan:
    attributes: dict[str, str | int] = {"nexus.target_id": str(ID), "nexus.attempt": attempt}
    return ReceivedSpan("nexus-worker", "embed episode", trace_id, "f" * 16, parent_id, links, attributes)


@pytest.mark.parametrize(
    ("attempt", "is_child", "is_linked", "is_sound"),
    [(1, True, False, True), (1, False, True, False), (2, False, True, True), (2, True, False, False), (2, False, False, False)],
)
def test_each_attempt_must_be_where_it_belongs(attempt: int, is_child: bool, is_linked: bool, is_sound: bool) -> None:
    collector = Collector()
    traces = Traces(collector)
    traceparent = traces.begin()
    _, trace_id, span_id, _ = traceparent.split("-")
    traces.wrote(traceparent, [ID])
    assert traces.missing([ID]) == {str(ID)}
    links = frozenset({(trace_id, span_id)}) if is_linked else frozenset()
    collector._spans.append(_span(trace_id if is_child else OTHER, span_id if is_child else "", attempt, links))
    assert traces.missing([ID]) == set()
    assert (traces.broken() == []) is is_sound
    collector._server.server_close()
