"""I12: one connected trace for each first attempt, and later attempts that link to what made them, as the collector received them."""

import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable
from uuid import UUID

from tests.factories.otlp import Collector, Identity, ReceivedSpan


class Traces:
    """What each episode of a case was written and edited under.

    Args:
        collector: Where the processes under attack send their spans.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._origins: defaultdict[str, set[Identity]] = defaultdict(set)

    @staticmethod
    def begin() -> str:
        """Return the traceparent of a new trace, as a request's span would have it."""
        return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"

    def wrote(self, traceparent: str, ids: Iterable[UUID]) -> None:
        """Remember what episodes were written or edited under."""
        _, trace_id, span_id, _ = traceparent.split("-")
        for each in ids:
            self._origins[str(each)].add((trace_id, span_id))

    def _attempts(self) -> list[ReceivedSpan]:
        return [span for span in self._collector.spans() if str(span.attributes.get("nexus.target_id")) in self._origins]

    def missing(self, ids: Collection[UUID]) -> set[str]:
        """Return those of the episodes, all written here, of which no attempt was received."""
        seen = {str(span.attributes["nexus.target_id"]) for span in self._attempts()}
        return {str(each) for each in ids if str(each) in self._origins} - seen

    def broken(self) -> list[str]:
        """Return, in words, how many attempts are not where they belong; empty when all are."""
        attempts = self._attempts()
        first = [span for span in attempts if span.attributes["nexus.attempt"] == 1]
        later = [span for span in attempts if span.attributes["nexus.attempt"] != 1]
        astray = sum((span.trace_id, span.parent_id) not in self._of(span) for span in first)
        loose = sum(bool(span.parent_id) or not span.links & self._of(span) for span in later)
        counts = {
            "first attempts that do not continue the trace of their write": astray,
            "later attempts that do not begin a trace that links to their write": loose,
        }
        return [f"I12: {count} {what}" for what, count in counts.items() if count]

    def _of(self, span: ReceivedSpan) -> set[Identity]:
        return self._origins[str(span.attributes["nexus.target_id"])]
