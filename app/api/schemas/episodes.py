"""Bodies, queries and answers of the routes that store and read episodes."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import orjson
from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.fields import (
    MAX_CONTENT_CHARS,
    AgentId,
    Content,
    JsonObject,
    Moment,
    QueryModel,
    StrictModel,
    Tags,
    Text128,
    Text256,
    UnitScore,
    check_object,
)


def render_details(action_type: str, details: dict[str, Any]) -> str:
    """Return details as lines that people and the encoder can read: the type, then `name: value` for each.

    Text stands as it is; every other value as JSON, so that no language's own notation gets in.
    """
    lines = [f"{name}: {value if isinstance(value, str) else orjson.dumps(value).decode()}" for name, value in details.items()]
    return "\n".join([action_type, *lines])


def _content_of(details: dict[str, Any], action_type: str) -> str:
    content = details.get("content")
    if not isinstance(content, str):
        return render_details(action_type, details)
    if not content.strip():
        raise PydanticCustomError("blank", "action_details.content must not be blank")
    return content


class EpisodeBody(StrictModel):
    """One episode to store."""

    action_type: Text256 = Field("note", description="What kind of thing happened.")
    action_details: dict[str, Any] | None = Field(
        None,
        description="Facts about it, at most 64 KiB beside `content`. `action_details.content` is taken as the content when "
        "there is none at the top level, and is then kept once, as `content`.",
    )
    content: Content | None = Field(
        None,
        validate_default=True,
        description="The text to remember, kept byte for byte. It wins over `action_details.content`; with neither, the type "
        "and the details are written out as text.",
    )
    context_state: JsonObject | None = Field(None, description="The state of the agent around it.")
    agent_id: AgentId | None = Field(None, description="Whose memory; needed with an administrator's key unless X-Agent-Id says it.")
    session_id: Text256 | None = None
    actor: Text128 | None = Field(None, description="Who said or did it.")
    tags: Tags = Field([])  # Not a factory: the request digest leaves out what equals the default.
    importance_score: UnitScore = 0.5
    occurred_at: Moment | None = Field(None, description="When it happened; now by default. Without a zone it is UTC.")
    metadata: JsonObject = Field({})
    project: Text256 | None = None
    language: Literal["en", "es", "simple"] | None = Field(None, description="Language for the search by words.")
    idempotency_key: Text256 | None = Field(None, description="The same key and body give the same receipt, however often they are sent.")

    @field_validator("action_details")
    @classmethod
    def _check_details(cls, details: dict[str, Any] | None) -> dict[str, Any] | None:
        if details is None:
            return None
        content = details.get("content")
        if not isinstance(content, str):
            return check_object(details)
        if len(content) > MAX_CONTENT_CHARS:
            raise PydanticCustomError("content_too_large", "action_details.content must have at most 200,000 characters")
        if "\0" in content:
            raise PydanticCustomError("nul_character", "action_details.content must not hold a NUL character")
        check_object({name: value for name, value in details.items() if name != "content"})
        return details

    @field_validator("content")
    @classmethod
    def _settle_content(cls, content: str | None, info: ValidationInfo) -> str | None:
        if content is not None or "action_details" not in info.data or "action_type" not in info.data:
            return content
        details = info.data["action_details"]
        if not details:
            raise PydanticCustomError("content_required", "content or non-empty action_details is needed")
        return _content_of(details, info.data["action_type"])


class BatchBody(StrictModel):
    """Episodes of one agent, stored together or not at all."""

    agent_id: AgentId | None = Field(None, description="Whose memory; every item that names an agent must name this one.")
    items: Annotated[list[EpisodeBody], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _one_agent(self) -> Self:
        named = {item.agent_id for item in self.items} | {self.agent_id}
        if len(named - {None}) > 1:
            raise PydanticCustomError("agents_differ", "every item must belong to the same agent")
        return self


class RecentQuery(QueryModel):
    """What GET /memory/episodic/recent takes."""

    limit: int = Field(20, ge=1, le=100, description="Most episodes in the answer.")
    session_id: Text256 | None = None
    tags: Tags = Field([], description="Only episodes with every one of these tags; repeat the parameter for more than one.")
    agent_id: AgentId | None = None


class AgentQuery(QueryModel):
    """A query that may name an agent."""

    agent_id: AgentId | None = None


class EpisodePath(BaseModel):
    """The id in the path."""

    episode_id: UUID


class EmbeddingState(BaseModel):
    """Where the embedding of an episode stands."""

    state: str


class EmbeddingDetail(EmbeddingState):
    """Where the embedding stands, and what went wrong so far."""

    attempts: int
    last_error: str | None


class ReceiptAnswer(BaseModel):
    """Proof that an episode was accepted; keep it to verify the episode later."""

    episode_id: UUID
    seq: int
    version: int
    agent_id: str
    content_sha256: str
    nonce: str
    created_at: datetime
    embedding: EmbeddingState


class BatchAnswer(BaseModel):
    """One receipt per item, in order."""

    items: list[ReceiptAnswer]


class EpisodeAnswer(BaseModel):
    """One stored episode."""

    episode_id: UUID
    seq: int
    version: int
    agent_id: str
    session_id: str | None
    actor: str | None
    action_type: str
    content: str
    content_sha256: str
    occurred_at: datetime
    importance_score: float
    tags: list[str]
    metadata: dict[str, Any]
    action_details: dict[str, Any] | None
    context_state: dict[str, Any] | None
    project: str | None
    language: str | None
    created_at: datetime
    updated_at: datetime
    embedding: EmbeddingDetail


class RecentAnswer(BaseModel):
    """Episodes, the latest first."""

    items: list[EpisodeAnswer]
