"""What is stored and to be done under each embedding model that the database knows."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from app.embedding.models import EmbeddingModel

_MODELS = text(
    "SELECT model_id, name, version, dimensions, fingerprint, source, is_active, is_target, activated_at"
    " FROM memory_system.embedding_models ORDER BY model_id"
)
_COUNT_VECTORS = text(
    "SELECT model_id, count(DISTINCT episode_id) AS episodes, count(*) AS chunks FROM nexus_memory.episode_chunks GROUP BY model_id"
)
_COUNT_WORK = text("SELECT model_id, state, count(*) AS rows FROM memory_system.embeddings_queue GROUP BY model_id, state")
_COUNT_COMPLETE = text("SELECT model_id, count(*) AS agents FROM memory_system.agent_models GROUP BY model_id")
# Rows that a worker gave back or failed at and that wait for another try. Few at a time: a migration keeps the queue short.
_WAITING_FOR = text(
    """
    SELECT last_error AS reason, count(*) AS rows FROM memory_system.embeddings_queue
    WHERE model_id = :model_id AND state = 'pending' AND last_error IS NOT NULL
    GROUP BY last_error ORDER BY count(*) DESC, last_error LIMIT 3
    """
)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model: its role (active, target or unused), whether it was ever active, and what is stored and to be done under it."""

    model_id: int
    name: str
    version: str
    dimensions: int
    fingerprint: str
    source: str
    role: str
    was_active: bool
    episodes: int
    chunks: int
    work: dict[str, int]
    complete_agents: int

    def as_model(self) -> EmbeddingModel:
        """Return the model by itself."""
        is_active = self.role == "active"
        return EmbeddingModel(self.model_id, self.name, self.version, self.dimensions, self.fingerprint, self.source, is_active)


def read_status(connection: Connection) -> list[ModelStatus]:
    """Return every model, in order of model_id. Call it as nexus_worker, which sees the vectors and work of all agents."""
    vectors = {row.model_id: row for row in connection.execute(_COUNT_VECTORS)}
    complete = {row.model_id: row.agents for row in connection.execute(_COUNT_COMPLETE)}
    work: dict[int, dict[str, int]] = {}
    for row in connection.execute(_COUNT_WORK):
        work.setdefault(row.model_id, {})[row.state] = row.rows
    return [
        ModelStatus(
            model_id=row.model_id,
            name=row.name,
            version=row.version,
            dimensions=row.dimensions,
            fingerprint=row.fingerprint,
            source=row.source,
            role="active" if row.is_active else "target" if row.is_target else "unused",
            was_active=row.activated_at is not None,
            episodes=vectors[row.model_id].episodes if row.model_id in vectors else 0,
            chunks=vectors[row.model_id].chunks if row.model_id in vectors else 0,
            work=work.get(row.model_id, {}),
            complete_agents=complete.get(row.model_id, 0),
        )
        for row in connection.execute(_MODELS)
    ]


def read_waiting_for(connection: Connection, model_id: int) -> dict[str, int]:
    """Return why rows of a model wait for another try, at most three reasons, the most frequent first, with the rows of each.

    Args:
        connection: In a transaction of nexus_worker.
        model_id: Of a model in use.
    """
    return {row.reason: row.rows for row in connection.execute(_WAITING_FOR, {"model_id": model_id})}
