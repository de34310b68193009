"""Storing the lines of an export under the ids they bring: each line once, however often the file is sent."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import orjson
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.cache.lists import ListCache
from app.db import Database
from app.episodes import repository as episode_repository
from app.episodes.models import EpisodeView, NewEpisode
from app.errors import Conflict, DeadlockVictim, InvalidRequest
from app.transfer import repository
from app.transfer.lines import Numbered, good_lines, require_header, steps
from app.transfer.models import BlockLine, CheckpointLine, EpisodeLine, MemoryLine, SemanticLine, WorkingLine
from app.transfer.report import ImportReport, Refused
from app.transfer.repository import Stored

_CLOCK_TOLERANCE = timedelta(minutes=1)
"""A file may come from a machine whose clock is a little ahead."""

_TRIES = 3
"""Of a step that PostgreSQL ended because it and another transaction waited for each other."""

_ATTRIBUTES = (
    "content",
    "action_type",
    "actor",
    "session_id",
    "tags",
    "importance_score",
    "occurred_at",
    "metadata",
    "action_details",
    "context_state",
    "project",
    "language",
)
_EXISTS = {
    "semantic": "a semantic memory of this id is stored with other words or attributes",
    "working": "a working memory of this id is stored with another content, or with other attributes",
    "block": "a memory block of this label is stored with another value, or is read-only here or there alone",
    "checkpoint": "a checkpoint of this id is stored with another state, or with other attributes",
}


class ImportService:
    """Reads exports.

    Args:
        database: Logged in as nexus_app.
        cache: To void the agent's lists, and to ask for work.
        write_through: Brings Redis up to the working memories of an agent that were stored.
        default_language: Language of a line that names none.
    """

    def __init__(
        self, database: Database, cache: ListCache, write_through: Callable[[str, Iterable[str]], None], default_language: str
    ) -> None:
        self._database = database
        self._cache = cache
        self._write_through = write_through
        self._default_language = default_language

    def run(self, agent_id: str, lines: Iterable[bytes], when_done: Callable[[int], None] = lambda _: None) -> ImportReport:
        """Store an agent's lines, many a transaction, and return what became of them.

        Ids, contents and times come back as they were; versions, numbers of acceptance, receipts and vectors are new, because this
        database accepts the memories now. A file may be sent again, whole or in part: what is there and equal is left alone.

        Args:
            agent_id: Whose. A line that names another agent is refused.
            lines: The file's lines.
            when_done: Told after each step how many lines it took.

        Raises:
            InvalidRequest: The file does not begin with the header of an export of this agent; nothing was stored.
            DatabaseUnavailable: Send the file again.
        """
        report = ImportReport()
        seen: Counter[str] = Counter()
        numbered = enumerate(lines, start=1)
        require_header(agent_id, next(numbered, (1, b""))[1])
        report.lines = 1
        for step in steps(good_lines(agent_id, numbered, report, seen)):
            self._store(agent_id, step, report)
            when_done(len(step))
        # A line that cannot be read is known before those that wait for their step.
        report.errors.sort(key=lambda error: error.line)
        return report

    def _store(self, agent_id: str, step: Sequence[Numbered], report: ImportReport) -> None:
        try:
            outcome = self._try(agent_id, step)
        except (InvalidRequest, Conflict, IntegrityError) as error:
            # One line spoils the transaction of all: each alone.
            if len(step) > 1:
                for one in step:
                    self._store(agent_id, [one], report)
                return
            number, line = step[0]
            if isinstance(error, IntegrityError):
                refused = Refused(409, "episode_id_taken", "an episode of this id was stored at the same moment")
            else:
                refused = Refused(409 if isinstance(error, Conflict) else 422, error.code, error.message)
            outcome = ImportReport()
            outcome.fail(refused.of(number, line.type))
        for name in ("imported", "unchanged", "expired"):
            getattr(report, name).update(getattr(outcome, name))
        report.add_failures(outcome)
        self._cache.invalidate([agent_id], ring=True)
        # Also what was there already: an import that ended between commit and this is made good by the next.
        self._write_through(agent_id, [line.context_id for _, line in step if isinstance(line, WorkingLine)])

    def _try(self, agent_id: str, step: Sequence[Numbered]) -> ImportReport:
        """Store a step in one transaction, again if it was the victim of a deadlock, and return what became of its lines."""
        for left in reversed(range(_TRIES)):
            outcome = ImportReport()
            try:
                with self._cache.voided_if_unknown(agent_id), self._database.transaction(agent_id) as connection:
                    if isinstance(step[0][1], EpisodeLine):
                        self._store_episodes(connection, agent_id, step, outcome)
                    else:
                        for number, line in sorted(step, key=_key):
                            self._store_other(connection, agent_id, number, line, outcome)
            except DeadlockVictim:
                if not left:
                    raise
            else:
                return outcome
        raise AssertionError("unreachable")

    def _store_episodes(self, connection: Connection, agent_id: str, step: Sequence[Numbered], outcome: ImportReport) -> None:
        lines = {line.episode_id: (number, line) for number, line in step if isinstance(line, EpisodeLine)}
        standing = repository.standing(connection, list(lines))
        stored = episode_repository.get_many(connection, agent_id, [i for i in lines if standing.get(i) == "own"])
        keys = [line.idempotency_key for _, line in lines.values() if line.idempotency_key]
        if len(keys) > 1:
            episode_repository.take_turn(connection, agent_id)
        spent = episode_repository.find_tombstones(connection, agent_id, keys) if keys else set()
        new = []
        for episode_id, (number, line) in lines.items():
            if episode_id in stored and _is_equal(stored[episode_id], self._new_episode(line)):
                outcome.unchanged["episode"] += 1
            elif (refused := _standing_refusal(standing.get(episode_id), line.idempotency_key in spent)) is not None:
                outcome.fail(refused.of(number, "episode"))
            else:
                new.append((episode_id, self._new_episode(line)))
        if not new:
            return
        projects = episode_repository.ensure_projects(connection, agent_id, {item.project for _, item in new if item.project})
        receipts = episode_repository.insert(connection, agent_id, new, projects)
        outcome.imported["episode"] += len(receipts)
        for episode_id, _ in new:
            if episode_id not in receipts:
                used = Refused(409, "idempotency_key_reused", "another episode was stored under this idempotency key")
                outcome.fail(used.of(lines[episode_id][0], "episode"))

    def _new_episode(self, line: EpisodeLine) -> NewEpisode:
        said = line.model_dump(mode="json", exclude={"request_sha256"})
        digest = hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest()
        return NewEpisode(
            content=line.content,
            request_sha256=bytes.fromhex(line.request_sha256) if line.request_sha256 else digest,
            action_type=line.action_type,
            actor=line.actor,
            session_id=line.session_id,
            tags=tuple(line.tags),
            importance_score=float(line.importance_score),
            occurred_at=line.occurred_at,
            metadata=line.metadata,
            action_details=line.action_details,
            context_state=line.context_state,
            project=line.project,
            language=line.language or self._default_language,
            idempotency_key=line.idempotency_key,
        )

    def _store_other(self, connection: Connection, agent_id: str, number: int, line: MemoryLine, outcome: ImportReport) -> None:
        match line:
            case SemanticLine():
                if "taken" in repository.standing(connection, line.source_episodes).values():
                    outcome.fail(Refused(409, "episode_id_taken", "a source episode is another agent's").of(number, line.type))
                    return
                stored = repository.insert_semantic(connection, agent_id, line, line.language or self._default_language)
            case WorkingLine():
                if line.expires_at <= datetime.now(UTC):
                    outcome.expired["working"] += 1
                    return
                if line.expires_at > datetime.now(UTC) + timedelta(seconds=line.ttl_seconds) + _CLOCK_TOLERANCE:
                    refused = Refused(422, "invalid_request", "expires_at is further away than ttl_seconds")
                    outcome.fail(refused.of(number, line.type))
                    return
                stored = repository.insert_working(connection, agent_id, line)
            case BlockLine():
                stored = repository.insert_block(connection, agent_id, line)
            case CheckpointLine():
                stored = repository.insert_checkpoint(connection, agent_id, line)
            case _:
                raise TypeError(f"{type(line).__name__} is no line of a memory")
        _count(stored, number, line, outcome)


def _key(numbered: Numbered) -> str:
    """Return that by which rows of a kind are stored, in an order that all importers and whoever forgets the agent share.

    Each transaction holds what it has stored until its end: in the order of their files two would wait for a row of the other.
    """
    match numbered[1]:
        case SemanticLine(memory_id=key) | CheckpointLine(checkpoint_id=key):
            return str(key)
        case WorkingLine(context_id=name) | BlockLine(label=name):
            return name
        case line:
            raise TypeError(f"{type(line).__name__} is no line of a memory that is stored by itself")


def _is_equal(stored: EpisodeView, item: NewEpisode) -> bool:
    """Return whether an episode is stored with everything that a line says of it."""
    return all(getattr(stored, name) == (list(item.tags) if name == "tags" else getattr(item, name)) for name in _ATTRIBUTES)


def _count(stored: Stored, number: int, line: MemoryLine, outcome: ImportReport) -> None:
    if stored.is_new:
        outcome.imported[line.type] += 1
    elif stored.same:
        outcome.unchanged[line.type] += 1
    elif stored.same is None:
        outcome.fail(Refused(409, "id_taken", "another agent has this id").of(number, line.type))
    else:
        outcome.fail(Refused(409, "conflict", _EXISTS[line.type]).of(number, line.type))


def _standing_refusal(standing: str | None, key_is_spent: bool) -> Refused | None:
    if standing == "own":
        return Refused(409, "conflict", "an episode of this id is stored with another content, or with other attributes")
    if standing == "taken":
        return Refused(409, "episode_id_taken", "another agent has this id")
    if standing == "deleted" or key_is_spent:
        return Refused(410, "gone", "the episode was deleted here; what is deleted stays deleted")
    return None
