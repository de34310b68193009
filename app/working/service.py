"""Working memory: PostgreSQL first, Redis after the commit, read from Redis when it holds what is stored now."""

import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from app.cache.contexts import ContextCache, digest
from app.db import Database
from app.errors import Conflict, NotFound
from app.serialization import to_json
from app.working import repository
from app.working.models import PRIORITIES, ContextPosition, ContextView, NewContext

_TIMES = ("expires_at", "created_at", "updated_at")


class WorkingMemoryService:
    """The use cases of working memory.

    Args:
        database: Logged in as nexus_app.
        cache: Values in Redis; best effort.
    """

    def __init__(self, database: Database, cache: ContextCache) -> None:
        self._database = database
        self._cache = cache

    def create(self, agent_id: str, context_id: str | None, context: NewContext) -> ContextView:
        """Store a context under a new id and return it.

        Raises:
            Conflict: The agent has a live context of this id.
            InvalidRequest: PostgreSQL cannot represent a value.
        """
        return self._put(agent_id, context_id or uuid.uuid4().hex, context, may_replace=False)[0]

    def put(self, agent_id: str, context_id: str, context: NewContext) -> tuple[ContextView, bool]:
        """Store a context, replacing what was there, and return (what is stored, whether it is new).

        Raises:
            InvalidRequest: PostgreSQL cannot represent a value.
        """
        return self._put(agent_id, context_id, context, may_replace=True)

    def _put(self, agent_id: str, context_id: str, context: NewContext, *, may_replace: bool) -> tuple[ContextView, bool]:
        generation = self._cache.generation(agent_id)
        with self._cache.removed_if_unknown(agent_id, context_id), self._database.transaction(agent_id) as connection:
            stored = repository.put(connection, agent_id, context_id, context, may_replace=may_replace)
            if stored is None:
                raise Conflict("the agent has a working memory of this id; PUT replaces it")
            value = _note(connection, stored[0])
        self._write(stored[0], value, generation)
        return stored

    def write_through(self, agent_id: str, context_ids: Iterable[str]) -> None:
        """Bring Redis up to contexts that were stored by other means than put()."""
        for context_id in context_ids:
            generation = self._cache.generation(agent_id)
            with self._cache.removed_if_unknown(agent_id, context_id), self._database.transaction(agent_id) as connection:
                view = repository.get(connection, agent_id, context_id)
                value = None if view is None else _note(connection, view)
            if view is not None and value is not None:
                self._write(view, value, generation)

    def _write(self, view: ContextView, value: bytes, generation: str | None) -> None:
        if view.expires_at is not None:
            self._cache.write(view.agent_id, view.context_id, value, view.expires_at, generation)

    def get(self, agent_id: str, context_id: str, *, refresh: bool = False) -> ContextView:
        """Return a live context, from Redis when it holds it.

        Args:
            agent_id: Whose.
            context_id: Which.
            refresh: Let it live for its whole time again.

        Raises:
            NotFound: The agent has no such context, or it has expired.
        """
        if refresh:
            return self._refresh(agent_id, context_id)
        value, generation = self._cache.read(agent_id, context_id)
        if value is not None and (cached := _from_json(value, agent_id, context_id)) is not None:
            return cached
        with self._database.transaction(agent_id) as connection:
            view = repository.get(connection, agent_id, context_id)
        if view is None:
            raise NotFound("this agent has no such working memory, or it has expired")
        if generation is not None and view.expires_at is not None:
            self._cache.refill(agent_id, context_id, to_json(view), view.expires_at, generation)
        return view

    def _refresh(self, agent_id: str, context_id: str) -> ContextView:
        generation = self._cache.generation(agent_id)
        with self._cache.removed_if_unknown(agent_id, context_id), self._database.transaction(agent_id) as connection:
            view = repository.refresh(connection, agent_id, context_id)
            value = None if view is None else _note(connection, view)
        if view is None or value is None:
            return self.get(agent_id, context_id)
        self._write(view, value, generation)
        return view

    def delete(self, agent_id: str, context_id: str) -> None:
        """Delete a context from both stores.

        Raises:
            NotFound: The agent has no such context, or it has expired.
        """
        with self._cache.removed_if_unknown(agent_id, context_id), self._database.transaction(agent_id) as connection:
            was_live = repository.delete(connection, agent_id, context_id)
        self._cache.remove(agent_id, context_id)
        if not was_live:
            raise NotFound("this agent has no such working memory, or it has expired")

    def list_page(
        self,
        agent_id: str,
        limit: int,
        *,
        session_id: str | None = None,
        context_type: str | None = None,
        priority: str | None = None,
        after: ContextPosition | None = None,
    ) -> tuple[list[ContextView], ContextPosition | None]:
        """Return one page of live contexts, the most important first and the newest first among equals, and where the next one begins."""
        with self._database.transaction(agent_id) as connection:
            views = repository.list_page(
                connection, agent_id, session_id=session_id, context_type=context_type, priority=priority, most=limit + 1, after=after
            )
        if len(views) <= limit:
            return views, None
        last = views[limit - 1]
        return views[:limit], ContextPosition(len(PRIORITIES) - 1 - PRIORITIES.index(last.priority), last.seq)


def _note(connection: Connection, view: ContextView) -> bytes:
    """Return the bytes that Redis is to hold of a context, noted in the transaction that wrote it."""
    value = to_json(view)
    repository.note_cached(connection, view.agent_id, view.context_id, digest(view.agent_id, view.context_id, value))
    return value


def _from_json(value: bytes, agent_id: str, context_id: str) -> ContextView | None:
    """Return the context that Redis holds, or None when it has expired, is another's, or was written by another release."""
    try:
        fields: dict[str, Any] = json.loads(value)
        view = ContextView(**{**fields, **{name: datetime.fromisoformat(fields[name]) for name in _TIMES}})
    except (ValueError, TypeError, KeyError):
        return None
    if (view.agent_id, view.context_id) != (agent_id, context_id) or view.expires_at is None or view.expires_at <= datetime.now(UTC):
        return None
    return view
