"""Services that keep everything in a dictionary, for tests of the HTTP layer alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

from app.audit import AuditEntry
from app.bootstrap import Services
from app.config import Settings
from app.episodes.models import EpisodeFilters, EpisodeView, NewEpisode, Project, Receipt
from app.errors import DatabaseUnavailable, NotFound, Unauthenticated
from app.identity.models import ApiKey, KeyRole, Principal
from app.integrity.service import AccountingIdentity, ReceiptClaim, SemanticIdentity, Verdict
from app.integrity.stats import ReconciliationTotals
from app.observability.metrics import PROCESSING_LATENCY, TIME_TO_SEARCHABLE, Distribution
from app.queue.advice import Advice, Backlog, advise
from app.queue.dead import DeadCauses, DeadPage, DeadSelection, Replay
from app.queue.models import QueueCounts
from app.queue.status import QueueStatus
from app.queue.tallies import Tallies
from app.search.query import SearchAnswer, SearchQuery

KEYS: dict[str, tuple[KeyRole, str | None]] = {
    "nxs_admin_key": ("admin", None),
    "nxs_agent_alice": ("agent", "alice"),
    "nxs_readonly_alice": ("readonly", "alice"),
    "nxs_operator_key": ("operator", None),
}


class Keys:
    """Knows the four keys above."""

    def authenticate(self, secret: str, *, trusts_outage: bool = False) -> Principal:
        """Return whom the key stands for."""
        if secret not in KEYS:
            raise Unauthenticated("the API key is not valid")
        role, agent_id = KEYS[secret]
        return Principal(key_id=UUID(int=1), role=role, agent_id=agent_id)

    def list_keys(self) -> list[ApiKey]:
        """Return nothing."""
        return []

    def audit(self, limit: int, before: int | None) -> list[AuditEntry]:
        """Return nothing."""
        return []

    def _find_nothing(self, *_: Any, **__: Any) -> Any:
        raise NotFound("there is no such key")

    create = revoke = rotate = _find_nothing


class NoLimit:
    """Counts nothing."""

    def count(self, key_id: UUID, per_minute: int | None) -> None:
        """Let the request through."""


@dataclass
class Episodes:
    """Remembers what the routes handed over."""

    stored: list[tuple[str, NewEpisode]] = field(default_factory=list)
    traceparents: list[str | None] = field(default_factory=list)
    failure: Exception | None = None

    def store(self, agent_id: str, episode: NewEpisode, traceparent: str | None = None) -> Receipt:
        """Keep the episode."""
        return self.store_many(agent_id, [episode], traceparent)[0]

    def store_many(self, agent_id: str, episodes: Sequence[NewEpisode], traceparent: str | None = None) -> list[Receipt]:
        """Keep the episodes."""
        if self.failure is not None:
            raise self.failure
        self.traceparents.append(traceparent)
        receipts = []
        for episode in episodes:
            self.stored.append((agent_id, episode))
            digest = hashlib.sha256(episode.content.encode()).hexdigest()
            receipts.append(Receipt(uuid4(), len(self.stored), 1, agent_id, digest, "00" * 16, datetime.now(UTC), "pending", False))
        return receipts

    def get(self, agent_id: str, episode_id: UUID) -> EpisodeView:
        """Find nothing."""
        raise NotFound("there is no such episode")

    def recent(self, agent_id: str, limit: int, session_id: str | None, tags: Sequence[str]) -> list[EpisodeView]:
        """Return nothing."""
        return []

    def list_page(self, agent_id: str, filters: EpisodeFilters, limit: int, **order: Any) -> tuple[list[EpisodeView], None]:
        """Return nothing."""
        return [], None

    def projects(self, agent_id: str) -> list[Project]:
        """Return nothing."""
        return []

    def _find_nothing(self, *_: Any, **__: Any) -> Any:
        raise NotFound("there is no such episode")

    change = delete = context = _find_nothing


@dataclass
class Search:
    """Remembers the queries."""

    queries: list[SearchQuery] = field(default_factory=list)

    def search(self, agent_id: str, query: SearchQuery) -> SearchAnswer:
        """Find nothing."""
        self.queries.append(query)
        return SearchAnswer(results=[], pending_embeddings=0, took_ms=0.1)


@dataclass
class Integrity:
    """Calls everything searchable."""

    agents: list[str | None] = field(default_factory=list)

    def verify_receipts(self, agent_id: str | None, receipts: Sequence[ReceiptClaim]) -> list[Verdict]:
        """Return one verdict per receipt."""
        self.agents.append(agent_id)
        return [Verdict(claim.episode_id, claim.seq, claim.version, "searchable", "") for claim in receipts]

    def verify_range(self, agent_id: str | None, first_seq: int, last_seq: int) -> list[Verdict]:
        """Return no verdict."""
        self.agents.append(agent_id)
        return []

    def identity(self) -> AccountingIdentity:
        """Return an identity that holds."""
        return AccountingIdentity(3, 1, 1, 1, 0, 0, 0)

    def semantic_identity(self) -> SemanticIdentity:
        """Return an identity that holds."""
        return SemanticIdentity(0, 0, 0, 0, 0, 0)

    def drift(self) -> int:
        """Return no drift."""
        return 0


@dataclass
class Report:
    """A health report."""

    status: str


@dataclass
class Health:
    """Reports what it is told to."""

    status: str = "healthy"

    def report(self) -> Report:
        """Return the status."""
        return Report(self.status)

    def ready(self) -> tuple[bool, str]:
        """Return whether the status allows traffic."""
        return self.status != "unhealthy", self.status


@dataclass
class Stats:
    """Counts nothing, or fails as told."""

    is_down: bool = False
    agents: list[str | None] = field(default_factory=list)

    def reconciliation(self) -> ReconciliationTotals:
        """Return one drift that was found and repaired."""
        return ReconciliationTotals({("working", "stale"): 2}, {("working", "stale"): 1}, {"working": 1.5})

    def recall(self) -> float | None:
        """Return a good recall."""
        return 0.99

    def stats(self, agent_id: str | None, *, per_agent: bool = False) -> dict[str, Any]:
        """Return the shape of the answer."""
        self.agents.append(agent_id)
        if self.is_down:
            raise DatabaseUnavailable("the database cannot be reached")
        return {"embeddings_queue": {"pending": 2, "processing": 0, "done": 5, "dead": 1}, "oldest_pending_age_seconds": 1.5}

    def queue(self) -> QueueCounts:
        """Return a queue with a little of everything, or fail as told."""
        if self.is_down:
            raise DatabaseUnavailable("the database cannot be reached")
        return QueueCounts(2, 0, 5, 1, 1.5)


class Queue:
    """A queue with a little of everything and one worker of known rate."""

    def status(self, drain_minutes: float | None = None) -> QueueStatus:
        """Return the shape of the answer."""
        return QueueStatus(2, 0, 0, 5, 1, 1.5, [], [], [], self.advice(drain_minutes))

    def advice(self, drain_minutes: float | None = None) -> Advice:
        """Advise three workers for five minutes."""
        return advise(Backlog(2_000, 2_000 * 250), [750.0, None], drain_minutes or 5.0)

    def dispatchers_alive(self) -> int:
        """Return one."""
        return 1

    def tallies(self) -> Tallies:
        """Return five rows done in half a second each, and one that died."""
        processing, searchable = (Distribution.of(metric.buckets, [0.5] * 5) for metric in (PROCESSING_LATENCY, TIME_TO_SEARCHABLE))
        return Tallies({"episodic": 5}, {"encoder_error": 1}, {"episodic": processing}, {"episodic": searchable})


@dataclass
class DeadRows:
    """Remembers what was asked for and replays nothing."""

    replays: list[tuple[DeadSelection, int, UUID | None]] = field(default_factory=list)
    pages: list[tuple[str | None, UUID | None, int]] = field(default_factory=list)

    def causes(self) -> DeadCauses:
        """Return no cause."""
        return DeadCauses([], 0)

    def rows(self, cause: str | None, after: UUID | None, limit: int) -> DeadPage:
        """Return no row."""
        self.pages.append((cause, after, limit))
        return DeadPage([], None)

    def replay(self, selection: DeadSelection, most: int, by: UUID | None) -> Replay:
        """Replay nothing."""
        self.replays.append((selection, most, by))
        return Replay(0, 0)


class Depths:
    """Keeps no sample."""

    def note(self, pending: int, processing: int, done: int, dead: int) -> None:
        """Forget it."""


class Nothing:
    """Holds nothing: lists are empty, and whatever else is asked for is not found."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def answer(*_: Any, **__: Any) -> Any:
            if name.startswith("list_"):
                return [], None
            raise NotFound("there is no such thing")

        return answer


@dataclass
class Doubles:
    """All of them."""

    episodes: Episodes = field(default_factory=Episodes)
    working: Nothing = field(default_factory=Nothing)
    semantic: Nothing = field(default_factory=Nothing)
    consciousness: Nothing = field(default_factory=Nothing)
    proofs: Nothing = field(default_factory=Nothing)
    agents: Nothing = field(default_factory=Nothing)
    exports: Nothing = field(default_factory=Nothing)
    imports: Nothing = field(default_factory=Nothing)
    search: Search = field(default_factory=Search)
    integrity: Integrity = field(default_factory=Integrity)
    health: Health = field(default_factory=Health)
    stats: Stats = field(default_factory=Stats)
    queue_status: Queue = field(default_factory=Queue)
    queue_depths: Depths = field(default_factory=Depths)
    dead_rows: DeadRows = field(default_factory=DeadRows)
    reconciliation_runs: Nothing = field(default_factory=Nothing)
    keys: Keys = field(default_factory=Keys)
    sessions: Nothing = field(default_factory=Nothing)
    rate_limiter: NoLimit = field(default_factory=NoLimit)

    def as_services(self, settings: Settings) -> Services:
        """Return them in the place of the real ones."""
        return Services(settings=settings, database=cast(Any, None), **cast(Any, self.__dict__))
