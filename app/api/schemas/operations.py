"""Queries and answers of the routes for operators."""

from typing import Literal

from pydantic import BaseModel, Field

from app.api.schemas.episodes import AgentQuery


class StatsQuery(AgentQuery):
    """What GET /stats takes."""

    per_agent: bool = Field(False, description="Add the counts of each agent; not for keys that are bound to one.")


Status = Literal["healthy", "degraded", "unhealthy"]


class ComponentAnswer(BaseModel):
    """One component; latency_ms is null when there was nothing to time."""

    status: Status
    detail: str
    latency_ms: float | None


class HealthAnswer(BaseModel):
    """As bad as the worst component: postgresql, redis, broker, encoder, dispatcher, worker, queue, accounting_identity."""

    status: Status
    components: dict[str, ComponentAnswer]


class LivenessAnswer(BaseModel):
    """The process answers."""

    status: Literal["alive"]


class ReadinessAnswer(BaseModel):
    """Whether this process can serve requests now; reason is empty when it can."""

    status: Literal["ready", "not_ready"]
    reason: str


class QueueCountsAnswer(BaseModel):
    """Rows of the queue by state."""

    pending: int
    processing: int
    done: int
    dead: int


class AgentTotalsAnswer(BaseModel):
    """What one agent has."""

    agent_id: str
    episodes: int
    embedded: int


class StatsAnswer(BaseModel):
    """Totals of one agent or of all; per_agent, in order of agent_id and at most 1,000, is there when it was asked for."""

    episodes: int
    embedded: int
    chunks: int
    agents: int
    embeddings_queue: QueueCountsAnswer
    oldest_pending_age_seconds: float
    per_agent: list[AgentTotalsAnswer] | None = None
