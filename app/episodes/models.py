"""What an episode is on its way in and out."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class NewEpisode:
    """An episode to store, validated.

    `request_sha256` is the hash of the canonical request: it tells a replay from another request under the same key.
    """

    content: str
    request_sha256: bytes
    action_type: str = "note"
    actor: str | None = None
    session_id: str | None = None
    tags: tuple[str, ...] = ()
    importance_score: float = 0.5
    occurred_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    action_details: dict[str, Any] | None = None
    context_state: dict[str, Any] | None = None
    project: str | None = None
    language: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class EpisodeFilters:
    """Conditions that every episode found or listed meets; None does not narrow. Times are [occurred_after, occurred_before)."""

    tags_any: tuple[str, ...] | None = None
    tags_all: tuple[str, ...] | None = None
    session_id: str | None = None
    actor: str | None = None
    action_type: str | None = None
    project: str | None = None
    occurred_after: datetime | None = None
    occurred_before: datetime | None = None
    min_importance: float | None = None
    metadata: dict[str, Any] | None = None

    def present(self) -> dict[str, Any]:
        """Return the conditions that narrow, as nexus_memory.episode_filter reads them."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Receipt:
    """The proof that an episode was accepted; hashes and nonce are hex.

    `embedding_state` is pending, processing, done, dead or missing. `replayed` says that an earlier request stored it.
    """

    episode_id: UUID
    seq: int
    version: int
    agent_id: str
    content_sha256: str
    nonce: str
    created_at: datetime
    embedding_state: str
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """An episode as it is stored now, with the state of its vector."""

    episode_id: UUID
    seq: int
    agent_id: str
    session_id: str | None
    actor: str | None
    action_type: str
    content: str
    version: int
    content_sha256: str
    occurred_at: datetime
    importance_score: float
    tags: list[str]
    metadata: dict[str, Any]
    action_details: dict[str, Any] | None
    context_state: dict[str, Any] | None
    project: str | None
    language: str
    created_at: datetime
    updated_at: datetime
    embedding_state: str
    embedding_attempts: int
    embedding_last_error: str | None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list of episodes: those after it, in the order of the list, come next."""

    occurred_at: datetime
    seq: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The proof that an episode was deleted; `leaf`, in hex, is that of its last version in the ledger, whose content hash is erased."""

    episode_id: UUID
    seq: int
    version: int
    agent_id: str
    leaf: str
    deleted_at: datetime


@dataclass(frozen=True, slots=True)
class EpisodeContext:
    """An episode and its neighbours in the session, each side in the order in which they happened."""

    before: list[EpisodeView]
    episode: EpisodeView
    after: list[EpisodeView]


@dataclass(frozen=True, slots=True)
class Project:
    """A project of an agent and how many episodes it has."""

    project_id: UUID
    name: str
    created_at: datetime
    episode_count: int
