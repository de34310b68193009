"""Storing and reading episodes: PostgreSQL first, the cache after the commit."""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from app.cache import keys
from app.cache.lists import ListCache
from app.db import Database
from app.episodes import edits, repository
from app.episodes.models import EpisodeContext, EpisodeFilters, EpisodeView, NewEpisode, Position, Project, Receipt, Tombstone
from app.errors import Conflict, Gone, IdempotencyMismatch, NotFound


class EpisodeService:
    """The use cases of episodes.

    Args:
        database: Logged in as nexus_app.
        cache: Lists and the doorbell; best effort.
        default_language: Language of an episode that names none.
    """

    def __init__(self, database: Database, cache: ListCache, default_language: str) -> None:
        self._database = database
        self._cache = cache
        self._default_language = default_language

    def store(self, agent_id: str, episode: NewEpisode, traceparent: str | None = None) -> Receipt:
        """Store one episode and return its receipt; see store_many."""
        return self.store_many(agent_id, [episode], traceparent)[0]

    def store_many(self, agent_id: str, episodes: Sequence[NewEpisode], traceparent: str | None = None) -> list[Receipt]:
        """Store all the episodes in one transaction, or none, and return a receipt each, in order.

        An item whose idempotency key was used with the same request returns the first receipt, marked as replayed.

        Raises:
            IdempotencyMismatch: A key was used with another request.
            Gone: The episode that a key stored was deleted.
            InvalidRequest: PostgreSQL cannot represent a value.
            DatabaseUnavailable: Nothing was stored, or, if the connection broke during the commit, that is not known.
        """
        items = [(uuid.uuid4(), self._with_language(episode)) for episode in episodes]
        with self._cache.voided_if_unknown(agent_id), self._database.transaction(agent_id, traceparent) as connection:
            receipts = self._store(connection, agent_id, items)
        if not all(receipt.replayed for receipt in receipts):
            self._cache.invalidate([agent_id], ring=True)
        return receipts

    def _with_language(self, episode: NewEpisode) -> NewEpisode:
        return episode if episode.language else replace(episode, language=self._default_language)

    def _store(self, connection: Connection, agent_id: str, items: list[tuple[UUID, NewEpisode]]) -> list[Receipt]:
        used_keys = [item.idempotency_key for _, item in items if item.idempotency_key is not None]
        if len(used_keys) > 1:
            repository.take_turn(connection, agent_id)
        if used_keys:
            self._refuse_deleted(connection, agent_id, used_keys)
        projects = repository.ensure_projects(connection, agent_id, {item.project for _, item in items if item.project})
        stored = repository.insert(connection, agent_id, items, projects)
        if len(stored) == len(items):
            return [stored[episode_id] for episode_id, _ in items]
        replayed = repository.find_replayed(connection, agent_id, used_keys)
        return [stored.get(episode_id) or self._replay(connection, agent_id, item, replayed) for episode_id, item in items]

    @staticmethod
    def _refuse_deleted(connection: Connection, agent_id: str, used_keys: Sequence[str]) -> None:
        deleted = repository.find_tombstones(connection, agent_id, used_keys)
        if deleted:
            raise Gone("the episode stored under this idempotency key was deleted; use a new key to store it again", count=len(deleted))

    def _replay(self, connection: Connection, agent_id: str, item: NewEpisode, replayed: dict[str, tuple[bytes, Receipt]]) -> Receipt:
        key = item.idempotency_key
        if key is None or key not in replayed:
            # The row that stood in the way was deleted between the two statements.
            self._refuse_deleted(connection, agent_id, [key] if key else [])
            raise IdempotencyMismatch("the idempotency key was in use a moment ago; send the request again")
        request_sha256, receipt = replayed[key]
        if request_sha256 != item.request_sha256:
            raise IdempotencyMismatch("this idempotency key was used with another body; use a new key for a new episode")
        return receipt

    def get(self, agent_id: str, episode_id: UUID) -> EpisodeView:
        """Return one episode with the state of its vector.

        Raises:
            Gone: The agent deleted it.
            NotFound: The agent has no such episode.
        """
        with self._database.transaction(agent_id) as connection:
            return self._get(connection, agent_id, episode_id)

    @staticmethod
    def _get(connection: Connection, agent_id: str, episode_id: UUID) -> EpisodeView:
        view = repository.get(connection, agent_id, episode_id)
        if view is None and repository.was_deleted(connection, agent_id, episode_id):
            raise Gone("the episode was deleted")
        if view is None:
            raise NotFound("this agent has no such episode")
        return view

    def context(self, agent_id: str, episode_id: UUID, before: int, after: int) -> EpisodeContext:
        """Return an episode with its nearest turns in the session; it stands alone when it belongs to none.

        Args:
            agent_id: Whose.
            episode_id: Which.
            before: How many earlier turns at most.
            after: How many later turns at most.

        Raises:
            Gone: The agent deleted it.
            NotFound: The agent has no such episode.
        """
        with self._database.transaction(agent_id) as connection:
            view = self._get(connection, agent_id, episode_id)
            earlier, later = repository.around(connection, agent_id, episode_id, before, after)
        return EpisodeContext(earlier, view, later)

    def list_page(
        self, agent_id: str, filters: EpisodeFilters, limit: int, *, newest_first: bool = True, after: Position | None = None
    ) -> tuple[list[EpisodeView], Position | None]:
        """Return one page of the agent's episodes, by occurred_at then seq, and where the next one begins; None after the last.

        Episodes stored meanwhile appear where their time puts them: pages neither repeat nor leave out one that was there before.
        """
        with self._database.transaction(agent_id) as connection:
            views = repository.list_page(connection, agent_id, filters, limit + 1, newest_first=newest_first, after=after)
        if len(views) <= limit:
            return views, None
        last = views[limit - 1]
        return views[:limit], Position(last.occurred_at, last.seq)

    def change(
        self,
        agent_id: str,
        episode_id: UUID,
        changes: Mapping[str, Any],
        expected_version: int | None = None,
        traceparent: str | None = None,
    ) -> Receipt:
        """Change fields of an episode and return the receipt of what is stored now.

        New content is a new version, and the receipt of the one before is superseded; new content or another actor is embedded anew.

        Args:
            agent_id: Whose.
            episode_id: Which.
            changes: Fields by name, JSON-ready; None clears. `project` is a name and made when missing.
            expected_version: Change it only while this is its version.
            traceparent: W3C trace context for the work that this makes.

        Raises:
            Conflict: It has another version.
            Gone: The agent deleted it.
            NotFound: The agent has no such episode.
            InvalidRequest: PostgreSQL cannot represent a value.
        """
        columns = {name: value for name, value in changes.items() if name != "project"}
        with self._cache.voided_if_unknown(agent_id), self._database.transaction(agent_id, traceparent) as connection:
            if "project" in changes:
                name = changes["project"]
                columns["project_id"] = repository.ensure_projects(connection, agent_id, {name})[name] if name else None
            receipt = edits.change(connection, agent_id, episode_id, columns, expected_version)
            if receipt is None:
                version = self._get(connection, agent_id, episode_id).version
                raise Conflict(f"the episode has version {version} now; read it again and decide anew", version=version)
        self._cache.invalidate([agent_id], ring=True)
        return receipt

    def delete(self, agent_id: str, episode_id: UUID) -> Tombstone:
        """Delete an episode from every store and return its tombstone.

        Raises:
            Gone: It was deleted before.
            NotFound: The agent has no such episode.
        """
        with self._cache.voided_if_unknown(agent_id), self._database.transaction(agent_id) as connection:
            tombstone = edits.delete(connection, agent_id, episode_id)
            if tombstone is None:
                self._get(connection, agent_id, episode_id)
                raise NotFound("this agent has no such episode")
        self._cache.invalidate([agent_id], ring=False)
        return tombstone

    def projects(self, agent_id: str) -> list[Project]:
        """Return the agent's projects by name; empty when it has none."""
        with self._database.transaction(agent_id) as connection:
            return repository.projects(connection, agent_id)

    def recent(self, agent_id: str, limit: int, session_id: str | None = None, tags: Sequence[str] = ()) -> list[EpisodeView]:
        """Return the latest episodes, latest first, from Redis when it holds them as they are now."""
        key = keys.recent(agent_id, limit, session_id, tags)
        cached, generation = self._cache.read(agent_id, key)
        if cached is not None:
            # Another release, which shares this Redis during an upgrade, may know other fields: then it is a miss.
            with suppress(KeyError, TypeError, ValueError):
                return [_from_json(item) for item in cached]
        with self._database.transaction(agent_id) as connection:
            filters = EpisodeFilters(session_id=session_id, tags_all=tuple(tags) or None)
            views = repository.list_page(connection, agent_id, filters, limit)
        if generation is not None:
            self._cache.store(key, generation, [asdict(view) for view in views])
        return views


def _from_json(item: dict[str, Any]) -> EpisodeView:
    times = {name: datetime.fromisoformat(item[name]) for name in ("occurred_at", "created_at", "updated_at")}
    return EpisodeView(**{**item, **times, "episode_id": UUID(item["episode_id"])})
