"""Queries of the routes for operators."""

from pydantic import Field

from app.api.schemas.episodes import AgentQuery


class StatsQuery(AgentQuery):
    """What GET /stats takes."""

    per_agent: bool = Field(False, description="Add the counts of each agent; not for keys that are bound to one.")
