"""The spans of a batch and of each of its rows that a traced request made."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from opentelemetry.trace import Status, StatusCode

from app.observability import context, tracing
from app.queue.models import Claim, WorkItem

_NAMED_TRACES = 8
"""How many of the traces that a batch serves its log lines name."""


class BatchTrace:
    """What becomes of each row, as its span tells it: done, failed, or given back, which is what is said unless it is told otherwise.

    Args:
        claim: The batch.
        items: Its rows.
    """

    def __init__(self, claim: Claim, items: Sequence[WorkItem]) -> None:
        kind = claim.target_kind
        self._batch = tracing.begin_batch({"nexus.rows": len(items), "nexus.model_id": claim.model_id})
        self._attempts = {
            item.target_id: tracing.begin_attempt(
                item.traceparent,
                item.attempt,
                self._batch,
                {"nexus.target_kind": kind, "nexus.target_id": str(item.target_id)},
            )
            for item in items
            if item.traceparent
        }

    def done(self, ids: Iterable[UUID]) -> None:
        """Say that rows have their vectors."""
        for target_id in ids:
            self._end(target_id, "done")

    def failed(self, ids: Iterable[UUID], reason: str) -> None:
        """Say that rows failed, and of what, without content."""
        for target_id in ids:
            self._end(target_id, "failed", reason)

    def _end(self, target_id: UUID, outcome: str, reason: str | None = None) -> None:
        span = self._attempts.pop(target_id, None)
        if span is None:
            return
        span.set_attribute("nexus.outcome", outcome)
        if reason is not None:
            span.set_status(Status(StatusCode.ERROR, reason))
        span.end()

    def close(self) -> None:
        """End every span that has not ended."""
        for target_id in list(self._attempts):
            self._end(target_id, "given back")
        self._batch.end()


@contextmanager
def traced(claim: Claim, items: Sequence[WorkItem]) -> Iterator[BatchTrace]:
    """Trace a batch while the block works on it."""
    trace = BatchTrace(claim, items)
    traces = {item.traceparent: tracing.trace_id_in(item.traceparent) for item in items if item.traceparent}
    named = sorted({trace_id for trace_id in traces.values() if trace_id is not None})
    if len(named) == 1:
        context.add(trace_id=named[0])
    elif named:
        context.add(trace_ids=named[:_NAMED_TRACES])
    try:
        yield trace
    finally:
        trace.close()
