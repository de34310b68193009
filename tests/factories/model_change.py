"""What the tests of a change of the embedding model share."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

from app.bootstrap import Services
from app.embedding.migration import ModelMigration
from app.embedding.models import EmbeddingModel
from app.search.query import SearchQuery
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import new_episode
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

OTHER = "a" * 64
Migrate = Callable[..., ModelMigration]


class Working:
    """Workers at work in a thread of their own while the test goes on."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._stop.wait(0.01):
            self._workshop.drain()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def store(services: Services, agent_id: str, *contents: str) -> list[UUID]:
    """Store episodes and return their ids, in the order given."""
    return [receipt.episode_id for receipt in services.episodes.store_many(agent_id, [new_episode(content) for content in contents])]


def best(services: Services, agent_id: str, query: str) -> tuple[str, float] | None:
    """Return the nearest episode's content and cosine, or nothing."""
    found = services.search.search(agent_id, SearchQuery(query, mode="vector", limit=1)).results
    return (found[0].content, round(float(found[0].score_breakdown["cosine"] or 0), 3)) if found else None


def vectors(sql: Sql) -> dict[int, int]:
    """Return how many episodes have chunks, by model."""
    return dict(sql("SELECT model_id, count(DISTINCT episode_id)::int FROM nexus_memory.episode_chunks GROUP BY 1"))


def embedded(migration: ModelMigration, encoder: FakeEncoder, workshop: Workshop) -> EmbeddingModel:
    """Make the encoder's model the target, have everything embedded under it, and return it."""
    target = migration.begin(encoder, "/models/other")
    with Working(workshop):
        migration.embed(target)
    return target


def run(migration: ModelMigration, encoder: FakeEncoder, source: str = "/models/other", **options: Any) -> EmbeddingModel:
    """Change the model as the command does, to the end, and return the new one."""
    target = migration.begin(encoder, source)
    if not target.is_active:
        assert migration.embed(target, **options) == 0
        migration.activate(target)
    migration.finish(target)
    return target
