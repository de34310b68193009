"""Bodies and answers of the routes that prove what is stored."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from app.api.schemas.episodes import AgentQuery
from app.fields import AgentId, HexDigest, JsonObject, Moment, QueryModel, SeqNumber, StrictModel

MAX_RANGE = 10_000


class ReceiptBody(StrictModel):
    """A receipt as the store route gave it."""

    episode_id: UUID
    seq: SeqNumber
    version: Annotated[int, Strict(), Field(ge=1, lt=2**31)]
    content_sha256: HexDigest
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    agent_id: AgentId | None = Field(None, description="May stay in; when it does, it must be the agent that verifies.")
    created_at: Moment | None = Field(None, description="May stay in; not compared.")
    embedding: JsonObject | None = Field(None, description="May stay in; not compared.")


class VerifyBody(StrictModel):
    """Either receipts, or the first and last number of a range of accepted episodes."""

    agent_id: AgentId | None = Field(None, description="Verify as this agent only.")
    receipts: Annotated[list[ReceiptBody], Field(min_length=1, max_length=1000)] | None = None
    first_seq: SeqNumber | None = None
    last_seq: SeqNumber | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        bounds = (self.first_seq is not None, self.last_seq is not None)
        if (self.receipts is not None) == any(bounds) or any(bounds) != all(bounds):
            raise PydanticCustomError("receipts_or_range", "give either receipts, or first_seq and last_seq")
        if self.first_seq is not None and self.last_seq is not None and not 0 <= self.last_seq - self.first_seq < MAX_RANGE:
            raise PydanticCustomError("seq_range", "last_seq must be at least first_seq, and the range at most 10,000 numbers")
        return self


class VerdictAnswer(BaseModel):
    """What became of one accepted episode."""

    episode_id: UUID | None
    seq: int
    version: int | None
    verdict: str
    detail: str


class VerifyAnswer(BaseModel):
    """Verdicts in the order asked for, and how many there are of each."""

    verdicts: list[VerdictAnswer]
    summary: dict[str, int]


class SemanticIdentityAnswer(BaseModel):
    """The accounting identity of semantic memories: stored = searchable + pending + processing + dead; drift must be 0."""

    stored: int
    searchable: int
    pending: int
    processing: int
    dead: int
    drift: int


class IdentityAnswer(BaseModel):
    """The accounting identity: accepted = searchable + pending + processing + dead + deleted; drift must be 0."""

    accepted: int
    searchable: int
    pending: int
    processing: int
    dead: int
    deleted: int
    drift: int
    semantic: SemanticIdentityAnswer


class HeadsQuery(QueryModel):
    """What GET /integrity/heads takes."""

    since: int | None = Field(None, ge=0, lt=2**63, description="range_no of a head that you know: adds the proof that its tree goes on.")


class ProofQuery(AgentQuery):
    """What GET /integrity/proof/{episode_id} takes."""

    version: int | None = Field(None, ge=1, lt=2**31, description="Which version of the episode; the latest by default.")


class HeadAnswer(BaseModel):
    """The signed head of a sealed range; hashes, key and signature in hex."""

    range_no: int
    first_ledger_seq: int
    last_ledger_seq: int
    void_count: int
    merkle_root: str
    tree_root: str
    previous_sha256: str
    sealed_at: datetime
    public_key: str
    signature: str


class HeadsAnswer(BaseModel):
    """Every head, in order; `consistency` is null unless `since` was given."""

    heads: list[HeadAnswer]
    consistency: list[str] | None


class ProofAnswer(BaseModel):
    """That a version of an episode stands in the sealed ledger: paths are hashes in hex, the nearest first."""

    episode_id: UUID
    version: int
    ledger_seq: int
    event: str
    leaf: str
    range_path: list[str]
    tree_path: list[str]
    head: HeadAnswer
