"""Bodies, queries and answers of the routes of working memory."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, Strict

from app.api.schemas.episodes import AgentQuery
from app.fields import AgentId, ContextId, JsonObject, StrictModel, Text128, Text256
from app.working.models import Priority

MAX_TTL_SECONDS = 31_536_000


class ContextBody(StrictModel):
    """A context to keep for a while."""

    active_content: JsonObject = Field(description="What the agent has in mind, at most 64 KiB; searched by its words.")
    ttl_seconds: Annotated[int, Strict(), Field(ge=1, le=MAX_TTL_SECONDS)] | None = Field(
        None, description="How long it lives; WORKING_TTL_SECONDS by default, a year at most."
    )
    session_id: Text256 | None = None
    context_type: Text128 = "general"
    priority: Priority = "normal"
    agent_id: AgentId | None = Field(None, description="Whose memory; needed with an administrator's key unless X-Agent-Id says it.")


class NewContextBody(ContextBody):
    """A context to keep under a new id."""

    context_id: ContextId | None = Field(None, description="What to call it; made up when left out.")


class ContextPath(BaseModel):
    """The id in the path."""

    context_id: ContextId


class ContextReadQuery(AgentQuery):
    """What GET /memory/working/{context_id} takes."""

    refresh: bool = Field(False, description="Let it live for its whole time again; needs a key that may write.")


class ContextListQuery(AgentQuery):
    """What GET /memory/working takes."""

    limit: int = Field(20, ge=1, le=100, description="Contexts of one page.")
    cursor: str | None = Field(None, max_length=512, description="next_cursor of the page before; the other parameters stay the same.")
    session_id: Text256 | None = None
    context_type: Text128 | None = None
    priority: Priority | None = None


class ContextAnswer(BaseModel):
    """A context as it is stored now."""

    context_id: str
    agent_id: str
    session_id: str | None
    context_type: str
    active_content: dict[str, Any]
    priority: str
    ttl_seconds: int | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class ContextListAnswer(BaseModel):
    """Contexts, the most important first and the newest first among equals; next_cursor is null on the last page."""

    items: list[ContextAnswer]
    next_cursor: str | None


class ForgottenContextAnswer(BaseModel):
    """What was deleted."""

    context_id: str
    deleted: bool
