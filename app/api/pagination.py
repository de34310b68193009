"""Cursors: where a list goes on, as an opaque word that is bound to the list it came from."""

import base64
import binascii
import hashlib
from typing import Any

import orjson

from app.errors import InvalidRequest


def encode(query: Any, position: list[Any]) -> str:
    """Return the cursor of a position.

    Args:
        query: What is listed and in which order, JSON-ready: the cursor works with the same query only.
        position: JSON-ready.
    """
    return base64.urlsafe_b64encode(orjson.dumps([_digest(query), position])).decode().rstrip("=")


def decode(cursor: str, query: Any) -> list[Any]:
    """Return the position that a cursor stands for.

    Nothing depends on a cursor being ours: row security holds whatever it says.

    Raises:
        InvalidRequest: It is malformed, or of another list.
    """
    try:
        digest, position = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, TypeError):
        digest, position = None, None
    # To Python true is a number, to PostgreSQL it is none.
    if not isinstance(position, list) or any(isinstance(part, bool) for part in position):
        raise _refusal("is not a cursor that this server gave")
    if digest != _digest(query):
        raise _refusal("belongs to a list with other filters or another order; begin again without it")
    return position


def decode_seq(cursor: str, query: Any) -> int:
    """Return the seq that a cursor of a list by seq stands for.

    Raises:
        InvalidRequest: It is malformed, or of another list.
    """
    match decode(cursor, query):
        case [int(seq)] if 0 < seq < 2**63:
            return seq
    raise refuse_position()


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(f"cursor: {message}", errors=[{"field": "cursor", "code": "bad_cursor", "message": message}])


def _digest(query: Any) -> str:
    return hashlib.sha256(orjson.dumps(query, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def refuse_position() -> InvalidRequest:
    """Return the error of a cursor whose position makes no sense to its list."""
    return _refusal("is not a cursor that this server gave")
