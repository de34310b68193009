"""Writing an answer's JSON."""

from typing import Any

from flask import Response

from app.serialization import to_json


def json_answer(payload: Any, status: int = 200, content_type: str = "application/json") -> Response:
    """Return the payload as JSON; dataclasses, UUIDs and aware times need no conversion before."""
    return Response(to_json(payload), status, content_type=content_type)
