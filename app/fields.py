"""The kinds of value that requests and imported lines are made of, each with its bounds."""

import re
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, StringConstraints
from pydantic_core import PydanticCustomError

from app.identity.service import AGENT_ID_PATTERN

MAX_CONTENT_CHARS = 200_000
MAX_OBJECT_BYTES = 64 * 1024
MAX_OBJECT_DEPTH = 64
MAX_TAGS = 64

TEXT_PATTERN = r"^[^\x00]*[^\s\x00][^\x00]*$"
"""Something to read, and no NUL, which PostgreSQL cannot store."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class StrictModel(BaseModel):
    """A request body or part of one: an unknown field is refused with its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@cache
def _plain_schema(model: type["QueryModel"]) -> dict[str, Any]:
    return super(QueryModel, model).model_json_schema()


class QueryModel(StrictModel):
    """A query string; its schema is generated once, because the router asks for it at every request."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the JSON schema; callers must not change the one without arguments."""
        return super().model_json_schema(*args, **kwargs) if args or kwargs else _plain_schema(cls)


def _check_tree(value: Any, depth: int) -> None:
    if depth > MAX_OBJECT_DEPTH:
        raise PydanticCustomError("nested_too_deeply", "must not be nested more than 64 levels deep")
    if isinstance(value, str):
        if "\0" in value:
            raise PydanticCustomError("nul_character", "must not hold a NUL character")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_tree(key, depth)
            _check_tree(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_tree(item, depth + 1)
    elif isinstance(value, int | float) and abs(value) >= 2**63:
        # The parser turns larger whole numbers into floats: they would come back as another number.
        raise PydanticCustomError("number_out_of_range", "must not hold numbers of 2^63 or more; write them as strings")


def check_object(value: dict[str, Any]) -> dict[str, Any]:
    """Return the object when PostgreSQL can keep it and give it back unchanged."""
    _check_tree(value, 0)
    if len(orjson.dumps(value)) > MAX_OBJECT_BYTES:
        raise PydanticCustomError("object_too_large", "must be at most 65,536 bytes of JSON")
    return value


def _require_date_text(value: Any) -> Any:
    # A bare number could be seconds or milliseconds; a guess would be stored for ever.
    if not isinstance(value, str) or not _DATE.match(value):
        raise PydanticCustomError("datetime_format", "must be an ISO 8601 date and time such as 2026-01-31T12:00:00Z")
    return value


def _to_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("datetime_range", "must lie within the years 1 to 9999 in UTC") from None


Moment = Annotated[datetime, BeforeValidator(_require_date_text), AfterValidator(_to_utc)]
"""An aware UTC time; one without a zone is taken as UTC."""

AgentId = Annotated[str, StringConstraints(pattern=AGENT_ID_PATTERN)]
Content = Annotated[str, StringConstraints(max_length=MAX_CONTENT_CHARS, pattern=TEXT_PATTERN)]
Text128 = Annotated[str, StringConstraints(max_length=128, pattern=TEXT_PATTERN)]
Text256 = Annotated[str, StringConstraints(max_length=256, pattern=TEXT_PATTERN)]
SearchText = Annotated[str, StringConstraints(max_length=10_000, pattern=TEXT_PATTERN)]
Tags = Annotated[list[Text128], Field(max_length=MAX_TAGS)]
UnitScore = Annotated[float, Strict(), Field(ge=0, le=1)]
Limit = Annotated[int, Strict(), Field(ge=1, le=100)]
SeqNumber = Annotated[int, Strict(), Field(ge=1, lt=2**63)]
JsonObject = Annotated[dict[str, Any], AfterValidator(check_object)]
"""A free JSON object that survives a round trip: no NUL, no number beyond 64 bits, at most 64 KiB."""

MAX_SOURCES = 1000

Sources = Annotated[list[UUID], Field(max_length=MAX_SOURCES)]
"""The episodes from which something is known."""

HexDigest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _addressable(value: str) -> str:
    if value in {".", ".."}:
        raise ValueError("is a step in a path and cannot be a name")
    return value


ContextId = Annotated[str, StringConstraints(pattern=r"^[^:/\s\x00]{1,256}$"), AfterValidator(_addressable)]
"""What a working memory is called; it is part of a key in Redis and of a path."""

MAX_BLOCK_CHARS = 100_000

BlockLabel = Annotated[str, StringConstraints(max_length=128, pattern=r"^[^/\x00]*[^/\s\x00][^/\x00]*$"), AfterValidator(_addressable)]
"""What a memory block is called; it is part of a path."""

BlockValue = Annotated[str, StringConstraints(max_length=MAX_BLOCK_CHARS, pattern=r"^[^\x00]*$")]
