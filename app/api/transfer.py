"""Routes that export and import an agent's whole memory as NDJSON."""

from collections.abc import Iterator

from flask import Response, g, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestTimeout, UnsupportedMediaType

from app.api.answers import json_answer
from app.api.authentication import require_agent
from app.api.schemas.episodes import AgentQuery
from app.api.schemas.transfer import ImportAnswer
from app.api.services import services
from app.errors import MalformedBody
from app.transfer.lines import MAX_LINE_BYTES

blueprint = APIBlueprint("transfer", __name__, abp_tags=[Tag(name="transfer")])

NDJSON = "application/x-ndjson"
_READ_BYTES = 64 * 1024
# A file is read line by line, so its size is no matter; a line's is.
_ANY_SIZE = 2**50

_STREAM = {"content": {NDJSON: {"schema": {"type": "string", "description": "One JSON object a line."}}}}


@blueprint.get("/export", responses={200: _STREAM})
def export_memory(query: AgentQuery) -> Response:
    """Stream all of an agent's memory, one JSON object a line: a header, the memories, and an end line with their counts.

    A file without its end line was cut off.
    """
    agent_id = require_agent(query.agent_id)
    return Response(
        services().exports.lines(agent_id, by=g.principal.key_id, is_own=g.principal.agent_id is not None),
        content_type=NDJSON,
        headers={"Content-Disposition": f'attachment; filename="{agent_id}.ndjson"'},
    )


@blueprint.post("/import", responses={200: ImportAnswer})
def import_memory(query: AgentQuery) -> Response:
    """Store an export under the ids it brings; sent again, it changes nothing. Each line that cannot be stored is named."""
    agent_id = require_agent(query.agent_id)
    if request.mimetype not in (NDJSON, "application/jsonl", "application/ndjson"):
        raise UnsupportedMediaType(f"the body must be sent as {NDJSON}")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("a compressed body is not taken; send it plain")
    return json_answer(services().imports.run(agent_id, _lines()))


def _lines() -> Iterator[bytes]:
    """Yield the body's lines as they arrive; a line that is too long comes cut, one byte over the limit."""
    request.max_content_length = _ANY_SIZE
    rest, is_too_long = b"", False
    while True:
        try:
            block = request.stream.read(_READ_BYTES)
        except (TimeoutError, ClientDisconnected):
            raise RequestTimeout("the body did not arrive in time; what came before was stored, so send it again") from None
        except ParseException:
            raise MalformedBody("the body's chunks are not well-formed HTTP") from None
        if not block:
            break
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if is_too_long:
                is_too_long = False
                continue
            yield line[: MAX_LINE_BYTES + 1]
        if len(rest) > MAX_LINE_BYTES:
            if not is_too_long:
                yield rest[: MAX_LINE_BYTES + 1]
            rest, is_too_long = b"", True
    if rest and not is_too_long:
        yield rest
