"""Bodies, queries and answers of the routes that manage API keys and show the audit log."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, Strict

from app.fields import AgentId, QueryModel, StrictModel, Text128
from app.identity.models import KeyRole
from app.identity.service import MAX_RATE_LIMIT


class KeyBody(StrictModel):
    """A key to issue."""

    role: KeyRole = Field(description="What it may do.")
    name: Text128 = Field(description="What people call it.")
    agent_id: AgentId | None = Field(
        None, description="The agent it is bound to; needed for roles agent and readonly, refused for the others."
    )
    expires_days: Annotated[int, Strict(), Field(ge=1, le=36_500)] | None = Field(
        None, description="Days until it stops working; never by default."
    )
    rate_limit_per_minute: Annotated[int, Strict(), Field(ge=1, le=MAX_RATE_LIMIT)] | None = Field(
        None, description="Requests it may make in a minute; the server's default when left out."
    )


class RotateBody(StrictModel):
    """How to rotate a key."""

    grace_seconds: Annotated[int, Strict(), Field(ge=0, le=604_800)] = Field(
        0, description="How long the old key goes on working; a week at most."
    )


class KeyPath(BaseModel):
    """The id in the path."""

    key_id: UUID


class AuditQuery(QueryModel):
    """What GET /audit takes."""

    limit: int = Field(50, ge=1, le=1000, description="Entries of one page.")
    before: int | None = Field(None, ge=1, lt=2**63, description="audit_id of the last entry of the page before.")


class KeyAnswer(BaseModel):
    """A key; the key itself cannot be had again."""

    key_id: UUID
    name: str
    role: str
    agent_id: str | None
    state: str = Field(description="active, expired or revoked.")
    rate_limit_per_minute: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class IssuedKeyAnswer(KeyAnswer):
    """A new key; `key` is shown this once."""

    key: str


class KeysAnswer(BaseModel):
    """Every key, oldest first; revoked and expired ones too."""

    items: list[KeyAnswer]


class AuditEntryAnswer(BaseModel):
    """One administrative action; key_id is null when it came from the command line."""

    audit_id: int
    at: datetime
    key_id: UUID | None
    action: str
    subject: str | None
    details: dict[str, Any]


class AuditAnswer(BaseModel):
    """Entries of the audit log, the latest first."""

    items: list[AuditEntryAnswer]
