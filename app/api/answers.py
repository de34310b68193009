"""Writing an answer's JSON."""

import json
from typing import Any

import orjson
from flask import Response

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


def json_answer(payload: Any, status: int = 200, content_type: str = "application/json") -> Response:
    """Return the payload as JSON; dataclasses, UUIDs and aware times need no conversion before."""
    try:
        body = orjson.dumps(payload, option=_OPTIONS)
    except orjson.JSONEncodeError:
        # Rows written by plain SQL may hold whole numbers beyond 64 bits, which only the standard library writes.
        body = json.dumps(payload, default=str, ensure_ascii=False).encode()
    return Response(body, status, content_type=content_type)
