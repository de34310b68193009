"""The lines of a file: read, judged one by one, and put together to steps."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
from pydantic import ValidationError

from app.consciousness.identity import identity_hash
from app.errors import InvalidRequest
from app.transfer.models import KINDS, LINES, CheckpointLine, EndLine, EpisodeLine, HeaderLine, MemoryLine
from app.transfer.report import ImportReport, Refused

MAX_LINE_BYTES = 4 * 1024 * 1024
_LINES_A_STEP = 200
_CHARS_A_STEP = 2_000_000

Numbered = tuple[int, MemoryLine]


def require_header(agent_id: str, line: bytes) -> None:
    """Refuse a file that does not begin as an export of this agent.

    Raises:
        InvalidRequest: It begins otherwise.
    """
    try:
        header = LINES.validate_python(_load(line))
    except (ValidationError, Refused):
        header = None
    if not isinstance(header, HeaderLine):
        raise InvalidRequest("the first line is not the header of an export that this version reads; nothing was stored")
    if header.agent_id not in (None, agent_id):
        raise InvalidRequest("the file is of another agent; nothing was stored")


def good_lines(agent_id: str, numbered: Iterator[tuple[int, bytes]], report: ImportReport, seen: Counter[str]) -> Iterator[Numbered]:
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
        except Refused as refused:
            report.fail(refused.of(number, kind))
            continue
        if isinstance(line, EndLine):
            report.is_complete = {name: count for name, count in line.counts.items() if count} == dict(seen)
        else:
            yield number, line


def steps(lines: Iterator[Numbered]) -> Iterator[list[Numbered]]:
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


def _load(text: bytes) -> Any:
    if len(text) > MAX_LINE_BYTES:
        raise Refused(413, "body_too_large", f"a line has at most {MAX_LINE_BYTES} bytes")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refused(400, "malformed_json", f"the line is not valid JSON: {error.msg}") from None


def _kind_of(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


def _understand(value: Any, agent_id: str) -> MemoryLine | EndLine:
    """Return the line that a JSON value is.

    Raises:
        Refused: It is none, is another agent's, or says of itself what is not so.
    """
    try:
        line: HeaderLine | MemoryLine | EndLine = LINES.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"][1:])) or "type"
        raise Refused(422, "invalid_request", f"{where}: {first['msg']}") from None
    if line.agent_id not in (None, agent_id):
        raise Refused(403, "permission_denied", "the line names another agent")
    if isinstance(line, HeaderLine):
        raise Refused(422, "invalid_request", "a second header")
    if isinstance(line, EpisodeLine) and line.content_sha256 not in (None, hashlib.sha256(line.content.encode()).hexdigest()):
        raise Refused(422, "hash_mismatch", "content_sha256 is not that of the content: the file was altered")
    if isinstance(line, CheckpointLine) and line.identity_hash != identity_hash(line.blocks):
        raise Refused(422, "hash_mismatch", "identity_hash is not that of the blocks: the file was altered")
    return line
