"""Storing the lines of an export under the ids they bring: each line once, however often the file is sent."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from pydantic import ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.cache.lists import ListCache
from app.consciousness.identity import identity_hash
from app.db import Database
from app.episodes import repository as episode_repository
from app.episodes.models import NewEpisode
from app.errors import Conflict, InvalidRequest
from app.transfer import repository
from app.transfer.models import (
    KINDS,
    LINES,
    BlockLine,
    CheckpointLine,
    EndLine,
    EpisodeLine,
    HeaderLine,
    MemoryLine,
    SemanticLine,
    WorkingLine,
)
from app.transfer.repository import Stored

MAX_LINE_BYTES = 4 * 1024 * 1024
_LINES_A_STEP = 200
_CHARS_A_STEP = 2_000_000
_MOST_ERRORS = 100


@dataclass(frozen=True, slots=True)
class LineError:
    """Why one line was not stored; `status` and `code` are what a request for it alone would be answered."""

    line: int
    kind: str | None
    status: int
    code: str
    detail: str


@dataclass(slots=True)
class ImportReport:
    """What became of a file.

    `imported` were stored now, `unchanged` were there already and equal, `expired` are working memories whose time is over; all by
    kind. `failed` counts the other lines, of which `errors` has the first hundred. `is_complete` says whether the file had its end line,
    and as many lines of each kind as that says.
    """

    lines: int = 0
    imported: Counter[str] = field(default_factory=Counter)
    unchanged: Counter[str] = field(default_factory=Counter)
    expired: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    errors: list[LineError] = field(default_factory=list)
    is_complete: bool = False

    def fail(self, error: LineError) -> None:
        """Count a line that was not stored."""
        self.failed += 1
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append(error)

    def add_failures(self, other: "ImportReport") -> None:
        """Count the failures of another report too; not all of those are named."""
        self.failed += other.failed
        self.errors.extend(other.errors[: _MOST_ERRORS - len(self.errors)])


_CLOCK_TOLERANCE = timedelta(minutes=1)
"""A file may come from a machine whose clock is a little ahead."""

Numbered = tuple[int, MemoryLine]


class _Refused(Exception):
    """One line cannot be stored."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail

    def of(self, line: int, kind: str | None) -> LineError:
        return LineError(line, kind, self.status, self.code, self.detail)


_EXISTS = {
    "semantic": "a semantic memory of this id is stored with other words",
    "working": "a working memory of this id is stored with another content",
    "block": "a memory block of this label is stored with another value",
    "checkpoint": "a checkpoint of this id is stored with another state",
}


class ImportService:
    """Reads exports.

    Args:
        database: Logged in as nexus_app.
        cache: To void the agent's lists, and to ask for work.
        default_language: Language of a line that names none.
    """

    def __init__(self, database: Database, cache: ListCache, default_language: str) -> None:
        self._database = database
        self._cache = cache
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
        self._require_header(agent_id, next(numbered, (1, b""))[1])
        report.lines = 1
        for step in _steps(self._parse(agent_id, numbered, report, seen)):
            self._store(agent_id, step, report)
            when_done(len(step))
        # A line that cannot be read is known before those that wait for their step.
        report.errors.sort(key=lambda error: error.line)
        return report

    @staticmethod
    def _require_header(agent_id: str, line: bytes) -> None:
        try:
            header = LINES.validate_python(_load(line))
        except (ValidationError, _Refused):
            header = None
        if not isinstance(header, HeaderLine):
            raise InvalidRequest("the first line is not the header of an export that this version reads; nothing was stored")
        if header.agent_id not in (None, agent_id):
            raise InvalidRequest("the file is of another agent; nothing was stored")

    @staticmethod
    def _parse(agent_id: str, numbered: Iterator[tuple[int, bytes]], report: ImportReport, seen: Counter[str]) -> Iterator[Numbered]:
        """Yield the good memory lines with their numbers; note the bad ones, and whether the end was right."""
        for number, text in numbered:
            if not text.strip():
                continue
            report.lines = number
            report.is_complete = False
            kind = None
            try:
                value = _load(text)
                kind = _kind_of(value)
                seen.update([kind] if kind in KINDS else [])
                line = _understand(value, agent_id)
            except _Refused as refused:
                report.fail(refused.of(number, kind))
                continue
            if isinstance(line, EndLine):
                report.is_complete = {name: count for name, count in line.counts.items() if count} == dict(seen)
            else:
                yield number, line

    def _store(self, agent_id: str, step: Sequence[Numbered], report: ImportReport) -> None:
        outcome = ImportReport()
        try:
            with self._cache.voided_if_unknown(agent_id), self._database.transaction(agent_id) as connection:
                if isinstance(step[0][1], EpisodeLine):
                    self._store_episodes(connection, agent_id, step, outcome)
                else:
                    for number, line in step:
                        self._store_other(connection, agent_id, number, line, outcome)
        except (InvalidRequest, Conflict, IntegrityError) as error:
            # One line spoils the transaction of all: each alone.
            if len(step) > 1:
                for one in step:
                    self._store(agent_id, [one], report)
                return
            number, line = step[0]
            if isinstance(error, IntegrityError):
                refused = _Refused(409, "episode_id_taken", "an episode of this id was stored at the same moment")
            else:
                refused = _Refused(409 if isinstance(error, Conflict) else 422, error.code, error.message)
            outcome = ImportReport()
            outcome.fail(refused.of(number, line.type))
        for name in ("imported", "unchanged", "expired"):
            getattr(report, name).update(getattr(outcome, name))
        report.add_failures(outcome)
        self._cache.invalidate([agent_id], ring=True)

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
            if episode_id in stored and stored[episode_id].content == line.content:
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
                used = _Refused(409, "idempotency_key_reused", "another episode was stored under this idempotency key")
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
                    outcome.fail(_Refused(409, "episode_id_taken", "a source episode is another agent's").of(number, line.type))
                    return
                stored = repository.insert_semantic(connection, agent_id, line, line.language or self._default_language)
            case WorkingLine():
                if line.expires_at <= datetime.now(UTC):
                    outcome.expired["working"] += 1
                    return
                if line.expires_at > datetime.now(UTC) + timedelta(seconds=line.ttl_seconds) + _CLOCK_TOLERANCE:
                    refused = _Refused(422, "invalid_request", "expires_at is further away than ttl_seconds")
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


def _count(stored: Stored, number: int, line: MemoryLine, outcome: ImportReport) -> None:
    if stored.is_new:
        outcome.imported[line.type] += 1
    elif stored.same:
        outcome.unchanged[line.type] += 1
    elif stored.same is None:
        outcome.fail(_Refused(409, "id_taken", "another agent has this id").of(number, line.type))
    else:
        outcome.fail(_Refused(409, "conflict", _EXISTS[line.type]).of(number, line.type))


def _standing_refusal(standing: str | None, key_is_spent: bool) -> _Refused | None:
    if standing == "own":
        return _Refused(409, "conflict", "an episode of this id is stored with another content")
    if standing == "taken":
        return _Refused(409, "episode_id_taken", "another agent has this id")
    if standing == "deleted" or key_is_spent:
        return _Refused(410, "gone", "the episode was deleted here; what is deleted stays deleted")
    return None


def _load(text: bytes) -> Any:
    if len(text) > MAX_LINE_BYTES:
        raise _Refused(413, "body_too_large", f"a line has at most {MAX_LINE_BYTES} bytes")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _Refused(400, "malformed_json", f"the line is not valid JSON: {error.msg}") from None


def _kind_of(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


def _understand(value: Any, agent_id: str) -> MemoryLine | EndLine:
    """Return the line that a JSON value is.

    Raises:
        _Refused: It is none, is another agent's, or says of itself what is not so.
    """
    try:
        line: HeaderLine | MemoryLine | EndLine = LINES.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"][1:])) or "type"
        raise _Refused(422, "invalid_request", f"{where}: {first['msg']}") from None
    if line.agent_id not in (None, agent_id):
        raise _Refused(403, "permission_denied", "the line names another agent")
    if isinstance(line, HeaderLine):
        raise _Refused(422, "invalid_request", "a second header")
    if isinstance(line, EpisodeLine) and line.content_sha256 not in (None, hashlib.sha256(line.content.encode()).hexdigest()):
        raise _Refused(422, "hash_mismatch", "content_sha256 is not that of the content: the file was altered")
    if isinstance(line, CheckpointLine) and line.identity_hash != identity_hash(line.blocks):
        raise _Refused(422, "hash_mismatch", "identity_hash is not that of the blocks: the file was altered")
    return line


def _steps(lines: Iterator[Numbered]) -> Iterator[list[Numbered]]:
    """Yield runs of lines of one kind, each id once in a run, none larger than memory bears."""
    step: list[Numbered] = []
    ids: set[object] = set()
    chars = 0
    for number, line in lines:
        same_kind = not step or step[0][1].type == line.type
        target = line.episode_id if isinstance(line, EpisodeLine) else number
        if step and (not same_kind or len(step) >= _LINES_A_STEP or chars >= _CHARS_A_STEP or target in ids):
            yield step
            step, ids, chars = [], set(), 0
        step.append((number, line))
        ids.add(target)
        chars += len(line.content) if isinstance(line, EpisodeLine) else 0
    if step:
        yield step
