"""The answers of the service as the client hands them on: dictionaries with these members. A test holds them against /openapi.json."""

from typing import Any, Literal, TypedDict


class EmbeddingState(TypedDict):
    """Where the embedding of a memory stands."""

    state: str


class EmbeddingDetail(EmbeddingState):
    """Where it stands, and what went wrong so far."""

    attempts: int
    last_error: str | None


class Receipt(TypedDict):
    """Proof that an episode was accepted; keep it to verify the episode later."""

    episode_id: str
    seq: int
    version: int
    agent_id: str
    content_sha256: str
    nonce: str
    created_at: str
    embedding: EmbeddingState


class Episode(TypedDict):
    """One stored episode."""

    episode_id: str
    seq: int
    version: int
    agent_id: str
    session_id: str | None
    actor: str | None
    action_type: str
    content: str
    content_sha256: str
    occurred_at: str
    importance_score: float
    tags: list[str]
    metadata: dict[str, Any]
    action_details: dict[str, Any] | None
    context_state: dict[str, Any] | None
    project: str | None
    language: str | None
    created_at: str
    updated_at: str
    embedding: EmbeddingDetail


class EpisodePage(TypedDict):
    """One page of episodes; next_cursor is None on the last."""

    items: list[Episode]
    next_cursor: str | None


class EpisodeContext(TypedDict):
    """An episode and its neighbours in the session."""

    before: list[Episode]
    episode: Episode
    after: list[Episode]


class Project(TypedDict):
    """A project and how many episodes it has."""

    project_id: str
    name: str
    created_at: str
    episode_count: int


class Tombstone(TypedDict):
    """Proof that an episode was deleted."""

    episode_id: str
    seq: int
    version: int
    agent_id: str
    leaf: str
    deleted_at: str


class Hit(TypedDict):
    """One result of a search."""

    memory_type: str
    id: str
    episode_id: str | None
    agent_id: str
    content: str
    score: float
    score_breakdown: dict[str, Any]
    occurred_at: str | None
    actor: str | None
    session_id: str | None
    tags: list[str]
    importance_score: float | None
    metadata: dict[str, Any]
    embedding_state: str | None


class SearchResults(TypedDict):
    """Results, the best first."""

    results: list[Hit]
    pending_embeddings: int
    took_ms: float


class WorkingContext(TypedDict):
    """A working memory."""

    context_id: str
    agent_id: str
    session_id: str | None
    context_type: str
    active_content: dict[str, Any]
    priority: str
    ttl_seconds: int | None
    expires_at: str | None
    created_at: str
    updated_at: str


class WorkingPage(TypedDict):
    """One page of working memories; next_cursor is None on the last."""

    items: list[WorkingContext]
    next_cursor: str | None


class SemanticMemory(TypedDict):
    """Something an agent knows."""

    memory_id: str
    version: int
    agent_id: str
    concept: str
    definition: str
    relationships: dict[str, Any]
    confidence_score: float
    source_episodes: list[str]
    language: str
    created_at: str
    updated_at: str
    embedding: EmbeddingDetail


class SemanticPage(TypedDict):
    """One page of semantic memories; next_cursor is None on the last."""

    items: list[SemanticMemory]
    next_cursor: str | None


class Block(TypedDict):
    """A memory block."""

    label: str
    agent_id: str
    value: str
    read_only: bool
    version: int
    created_at: str
    updated_at: str


class BlockPage(TypedDict):
    """One page of memory blocks; next_cursor is None on the last."""

    items: list[Block]
    next_cursor: str | None


class Checkpoint(TypedDict):
    """A checkpoint."""

    checkpoint_id: str
    agent_id: str
    checkpoint_type: str
    state_data: dict[str, Any]
    blocks: dict[str, str]
    identity_hash: str
    continuity_score: float
    metadata: dict[str, Any]
    created_at: str


class CheckpointPage(TypedDict):
    """One page of checkpoints; next_cursor is None on the last."""

    items: list[Checkpoint]
    next_cursor: str | None


class BlockChanges(TypedDict):
    """Labels of blocks that are not as they were."""

    changed: list[str]
    added: list[str]
    removed: list[str]


class Restored(TypedDict):
    """The state of a checkpoint, and how far the agent still was who it was then."""

    checkpoint: Checkpoint
    is_intact: bool
    current_identity_hash: str
    continuity_score: float
    changes: BlockChanges
    blocks_written: int


class Verdict(TypedDict):
    """What became of one accepted episode."""

    episode_id: str | None
    seq: int
    version: int | None
    verdict: str
    detail: str


class Verdicts(TypedDict):
    """Verdicts in the order asked for, and how many there are of each."""

    verdicts: list[Verdict]
    summary: dict[str, int]


class Forgotten(TypedDict):
    """What was deleted of an agent, and what is there still."""

    agent_id: str
    deleted: dict[str, int]
    remaining: dict[str, int]


class ImportReport(TypedDict):
    """What became of a file."""

    lines: int
    imported: dict[str, int]
    unchanged: dict[str, int]
    expired: dict[str, int]
    failed: int
    errors: list[dict[str, Any]]
    is_complete: bool


Mode = Literal["hybrid", "vector", "keyword"]
MemoryType = Literal["episodic", "semantic", "working"]
Priority = Literal["critical", "high", "normal", "low"]
