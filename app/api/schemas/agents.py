"""Paths and answers of the routes that concern an agent as a whole."""

from pydantic import BaseModel

from app.fields import AgentId


class AgentPath(BaseModel):
    """The agent in the path."""

    agent_id: AgentId


class ForgottenAnswer(BaseModel):
    """What was deleted by store, and what is there still: all zero, unless somebody wrote meanwhile."""

    agent_id: str
    deleted: dict[str, int]
    remaining: dict[str, int]
