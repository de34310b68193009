"""JSON of answers and of cached lists: fast for what nearly every row holds, right for the rest."""

import json
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


def to_json(payload: Any) -> bytes:
    """Return the payload as UTF-8 JSON; dataclasses, UUIDs and aware times need no conversion before.

    Raises:
        TypeError: It holds something that is none of these and no JSON value.
    """
    try:
        return orjson.dumps(payload, option=_OPTIONS)
    except orjson.JSONEncodeError:
        # Rows written by plain SQL may hold whole numbers beyond 64 bits, which only the standard library writes.
        return json.dumps(payload, default=_plain, ensure_ascii=False).encode()
