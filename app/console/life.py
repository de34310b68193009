"""An episode's life as steps, from its acceptance to the signed ledger, told from what the caller may see. Pure."""

from dataclasses import dataclass
from datetime import datetime

from app.episodes.models import EpisodeView
from app.integrity.proofs import InclusionProof
from app.integrity.verdicts import Verdict
from app.queue.dead import DeadRow

_ON_THE_WAY = {"pending", "processing"}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened, or has not yet: `tone` is one of words.TONES' values."""

    title: str
    tone: str
    text: str
    at: datetime | None = None


def steps(verdict: Verdict, view: EpisodeView | None, dead: DeadRow | None, proof: InclusionProof | None) -> list[Step]:
    """Return the steps in order.

    Args:
        verdict: What became of it, without a receipt.
        view: The episode; None when it is gone, or the caller may not see memories.
        dead: Its dead row; None when it has none, or the caller may not see the queue.
        proof: Where it stands in the sealed ledger; None when that is not sealed yet.
    """
    if verdict.verdict == "missing":
        return [Step("Not accepted", "bad", "The ledger has no acceptance of this id, and no such episode is stored.")]
    found = [_accepted(verdict, view)]
    if verdict.version > 1:
        times = "once" if verdict.version == 2 else f"{verdict.version - 1} times"
        at = view.updated_at if view is not None else None
        found.append(Step("Edited", "good", f"{times} through the service; version {verdict.version} is the latest.", at))
    if verdict.verdict == "deleted":
        found.append(Step("Deleted", "calm", "Through the service, from every store. The ledger keeps that it was, not what it was."))
    else:
        found.append(_embedding(verdict, view, dead))
    return [*found, _sealed(proof)]


def _accepted(verdict: Verdict, view: EpisodeView | None) -> Step:
    stored = "Stored, and found by its words from that moment on." if verdict.verdict != "deleted" else "Stored."
    if verdict.seq == 0:
        return Step("Stored without an acceptance", "bad", "It is in the table, and the ledger has no acceptance of it.")
    return Step("Accepted", "good", f"{stored} Its number is {verdict.seq}.", view.created_at if view is not None else None)


def _embedding(verdict: Verdict, view: EpisodeView | None, dead: DeadRow | None) -> Step:
    state = view.embedding_state if view is not None else verdict.verdict
    attempts = dead.attempts if dead is not None else (view.embedding_attempts if view is not None else None)
    error = dead.cause if dead is not None else (view.embedding_last_error if view is not None else None)
    failed = f" Last error: {error}." if error else ""
    made = f" {_times(attempts)} so far." if attempts else ""
    if dead is not None or state == "dead":
        text = f"{_times(attempts)}, and none succeeded.{failed}" if attempts else f"Its attempts are used up.{failed}"
        return Step("No vector", "bad", f"{text} It is found by its words only.", dead.dead_at if dead is not None else None)
    if state in _ON_THE_WAY:
        title = "Waiting for its vector" if state == "pending" else "Being embedded"
        return Step(title, "wait", f"Until then it is found by its words.{made}{failed}")
    if verdict.verdict == "stale":
        return Step("No vector", "warn", "It has none of its present text, and no work is queued; reconciliation will enqueue it.")
    if verdict.verdict == "altered":
        return Step("Altered", "bad", f"{verdict.detail[:1].upper()}{verdict.detail[1:]}.")
    return Step("Embedded", "good", "Found by its meaning too.")


def _times(attempts: int | None) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts or 0} attempts"


def _sealed(proof: InclusionProof | None) -> Step:
    if proof is None:
        return Step("Not sealed yet", "wait", "Its range of the ledger is sealed when it is full, or after a while.")
    head = proof.head.head
    text = f"Entry {proof.ledger_seq} of the ledger, in range {head.range_no} ({head.first_ledger_seq} to {head.last_ledger_seq})."
    return Step("Sealed", "good", f"{text} GET /integrity/proof gives the proof.", head.sealed_at)
