"""What became of an accepted episode, decided from facts: pure."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Facts:
    """What PostgreSQL knows about one claim, all from one snapshot; see memory_system.verification_facts."""

    episode_id: UUID
    seq: int
    version: int
    is_accepted: bool
    receipt_matches: bool
    is_deleted: bool
    row_exists: bool
    row_version: int | None
    row_matches_ledger: bool
    queue_state: str | None
    has_vector: bool | None
    is_vector_intact: bool | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of searchable, pending, processing, dead, stale, superseded, deleted, altered, missing; `detail` says why in a sentence."""

    episode_id: UUID
    seq: int
    version: int
    verdict: str
    detail: str


def judge(facts: Facts) -> Verdict:
    """Return the verdict on a claim.

    What the ledger says goes first, then whether the row is what the ledger says, then whether it can be found.
    """
    word, detail = _decide(facts)
    return Verdict(facts.episode_id, facts.seq, facts.version, word, detail)


def _decide(facts: Facts) -> tuple[str, str]:  # noqa: PLR0911 - a decision table reads best as one
    if not facts.is_accepted:
        if facts.row_exists:
            return "altered", "an episode with this id is stored, but the ledger has no acceptance of this version"
        return "missing", "the ledger has no such episode and version, and no such episode is stored"
    if not facts.receipt_matches:
        return "altered", "the receipt is not the one that the ledger has of this version"
    if facts.is_deleted and facts.row_exists:
        return "altered", "the episode was deleted through the service, and was put back behind its back"
    if facts.is_deleted:
        return "deleted", "the episode was deleted through the service"
    if not facts.row_exists:
        return "missing", "the episode was accepted and is gone, without a deletion in the ledger"
    if not facts.row_matches_ledger:
        return "altered", "what is stored is not what the ledger has of its version: it was changed behind the service's back"
    if facts.row_version != facts.version:
        return "superseded", f"edited through the service since; version {facts.row_version} is stored"
    return _findability(facts)


def _findability(facts: Facts) -> tuple[str, str]:
    if facts.queue_state in ("pending", "processing"):
        return facts.queue_state, "stored, found by its words; its vector is on the way"
    if facts.queue_state == "dead":
        return "dead", "stored, found by its words; embedding used up its attempts, see last_error"
    if not facts.has_vector:
        return "stale", "stored, found by its words; it has no vector of its present text, and no work is queued"
    if not facts.is_vector_intact:
        return "altered", "its vectors are not those that were computed: they were changed behind the service's back"
    return "searchable", "stored as accepted, with the vector of its present text"
