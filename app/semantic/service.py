"""Semantic memories: what an agent knows, embedded through the same queue as its episodes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from app.cache.lists import ListCache
from app.db import Database
from app.errors import Conflict, InvalidRequest, NotFound
from app.semantic import repository
from app.semantic.models import NewSemanticMemory, SemanticView


class SemanticService:
    """The use cases of semantic memories.

    Args:
        database: Logged in as nexus_app.
        cache: Rings the doorbell.
        default_language: Language of a memory that names none.
    """

    def __init__(self, database: Database, cache: ListCache, default_language: str) -> None:
        self._database = database
        self._cache = cache
        self._default_language = default_language

    def store(self, agent_id: str, memory: NewSemanticMemory, traceparent: str | None = None) -> SemanticView:
        """Store a semantic memory and return it.

        Raises:
            InvalidRequest: A source episode is not the agent's, or PostgreSQL cannot represent a value.
        """
        memory = memory if memory.language else replace(memory, language=self._default_language)
        with self._database.transaction(agent_id, traceparent) as connection:
            _require_episodes(connection, agent_id, memory.source_episodes)
            view = self._get(connection, agent_id, repository.insert(connection, agent_id, memory))
        self._cache.invalidate((), ring=True)
        return view

    def get(self, agent_id: str, memory_id: UUID) -> SemanticView:
        """Return one semantic memory with the state of its vector.

        Raises:
            NotFound: The agent has no such memory.
        """
        with self._database.transaction(agent_id) as connection:
            return self._get(connection, agent_id, memory_id)

    @staticmethod
    def _get(connection: Connection, agent_id: str, memory_id: UUID) -> SemanticView:
        view = repository.get(connection, agent_id, memory_id)
        if view is None:
            raise NotFound("this agent has no such semantic memory")
        return view

    def change(
        self,
        agent_id: str,
        memory_id: UUID,
        changes: Mapping[str, Any],
        expected_version: int | None = None,
        traceparent: str | None = None,
    ) -> SemanticView:
        """Change the named fields and return what is stored now; another concept or definition is a new version, embedded anew.

        Raises:
            Conflict: It has another version than expected.
            NotFound: The agent has no such memory.
            InvalidRequest: A source episode is not the agent's, or PostgreSQL cannot represent a value.
        """
        with self._database.transaction(agent_id, traceparent) as connection:
            _require_episodes(connection, agent_id, changes.get("source_episodes", ()))
            if not repository.change(connection, agent_id, memory_id, changes, expected_version):
                version = self._get(connection, agent_id, memory_id).version
                raise Conflict(f"the semantic memory has version {version} now; read it again and decide anew", version=version)
            view = self._get(connection, agent_id, memory_id)
        self._cache.invalidate((), ring=True)
        return view

    def delete(self, agent_id: str, memory_id: UUID) -> None:
        """Delete a semantic memory with its vector and its work.

        Raises:
            NotFound: The agent has no such memory.
        """
        with self._database.transaction(agent_id) as connection:
            if not repository.delete(connection, agent_id, memory_id):
                raise NotFound("this agent has no such semantic memory")

    def list_page(
        self, agent_id: str, limit: int, *, concept: str | None = None, after: int | None = None
    ) -> tuple[list[SemanticView], int | None]:
        """Return one page of semantic memories, the newest first, and the seq after which the next one begins."""
        with self._database.transaction(agent_id) as connection:
            views = repository.list_page(connection, agent_id, concept, limit + 1, after)
        return (views, None) if len(views) <= limit else (views[:limit], views[limit - 1].seq)


def _require_episodes(connection: Connection, agent_id: str, episode_ids: Sequence[UUID]) -> None:
    unknown = repository.unknown_episodes(connection, agent_id, episode_ids) if episode_ids else []
    if unknown:
        message = f"not an episode of this agent: {', '.join(map(str, unknown[:5]))}"
        raise InvalidRequest(
            f"source_episodes: {message}", errors=[{"field": "source_episodes", "code": "unknown_episode", "message": message}]
        )
