"""The API's description: /openapi.json, and /docs with assets that this server ships itself."""

from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, current_app
from flask_openapi3.openapi import OpenAPI
from werkzeug.exceptions import NotFound

from app.api import examples
from app.api.answers import json_answer
from app.api.policies import ROUTE_POLICIES, Access
from app.api.problems import PROBLEM_TYPE
from app.api.transfer import NDJSON

blueprint = Blueprint("docs", __name__)

_SWAGGER = files("flask_openapi3_swagger") / "templates" / "swagger"
_SHIPPED = {
    "swagger-ui.css": ("css/swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("js/swagger-ui-bundle.js", "text/javascript"),
}
_START = """window.ui = SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true});
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>NEXUS Cerebro API</title><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="swagger-ui"></div><script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body>
</html>
"""
# Swagger UI sets styles in place and draws its icons from data: URLs; scripts come from this server alone.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)

_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}
_AGENT_HEADER = {
    "name": "X-Agent-Id",
    "in": "header",
    "required": False,
    "description": "Whose memory; for keys that serve any agent.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._@-]{1,128}$"},
}
_IDEMPOTENCY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same as idempotency_key in the body.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 256},
}
_KEYED = {"409": "The idempotency key was used with another body", "410": "It was stored before and deleted"}
_ONE_EPISODE = {"404": "No such episode", "410": "It was deleted"}
_OTHER_VERSION = {"409": "It has another version than expected_version"}
_ABSENT = {"404": "There is no such thing, or it has expired"}
_TAKEN = {"409": "The name is taken"}
_FIXED = {"409": "It is read-only, or has another version than expected_version"}
_IMPORT = {"400": "Malformed", "408": "The body did not arrive in time", "415": "Not NDJSON"}
_REFUSALS: dict[str, dict[str, str]] = {
    "episodes.store_episode": _KEYED,
    "episodes.store_episodes": _KEYED,
    "episodes.get_episode": _ONE_EPISODE,
    "episodes.get_context": _ONE_EPISODE,
    "episodes.delete_episode": _ONE_EPISODE,
    "episodes.change_episode": _ONE_EPISODE | _OTHER_VERSION,
    "integrity.get_heads": {"404": "There is no such head"},
    "integrity.get_proof": {"404": "The ledger has no such version of this agent", "409": "Its range is not sealed yet"},
    "transfer.import_memory": _IMPORT,
    "keys.revoke_key": {"404": "There is no such key", "409": "It is the last administrator's key"},
    "keys.rotate_key": {"404": "There is no such key", "409": "It is revoked or has expired"},
    "working.create_context": _TAKEN,
    "working.get_context": _ABSENT,
    "working.delete_context": _ABSENT,
    "semantic.get_semantic": _ABSENT,
    "semantic.change_semantic": _ABSENT | _OTHER_VERSION,
    "semantic.delete_semantic": _ABSENT,
    "consciousness.create_block": _TAKEN,
    "consciousness.put_block": _FIXED,
    "consciousness.get_block": _ABSENT,
    "consciousness.delete_block": _ABSENT | _FIXED,
    "consciousness.get_checkpoint": _ABSENT,
    "consciousness.restore_checkpoint": _ABSENT | {"409": "A block that would have to change is read-only, or the checkpoint was altered"},
}
"""What a route may answer beside what all of them do, by endpoint."""

_NO_AGENT = {"integrity.get_heads", "operations.get_health", "operations.get_metrics", "integrity.get_identity"}


def _complete(operation: dict[str, Any], endpoint: str) -> None:
    answers = operation.setdefault("responses", {})
    policy = ROUTE_POLICIES[endpoint]
    refusals = (
        {"408": "The body did not arrive in time", "413": "Too large", "415": "Not JSON", "400": "Malformed"}
        if "requestBody" in operation
        else {}
    )
    if policy is not Access.OPEN:
        operation["security"] = [{"ApiKey": []}, {"Bearer": []}]
        refusals |= {"429": "The key has made as many requests as it may in this minute"}
        refusals |= {"401": "No good key", "403": "The key may not do this", "503": "The database is not there now"}
        if endpoint not in _NO_AGENT and not endpoint.startswith(("queue.", "keys.")):
            operation.setdefault("parameters", []).append(_AGENT_HEADER)
    if endpoint == "episodes.store_episode":
        operation["parameters"].append(_IDEMPOTENCY_HEADER)
    refusals |= _REFUSALS.get(endpoint, {})
    if endpoint == "transfer.import_memory":
        operation["requestBody"] = {"required": True, "content": {NDJSON: {"schema": {"type": "string"}, "example": examples.LINES}}}
    in_path = [parameter for parameter in operation.get("parameters", ()) if parameter["in"] == "path"]
    for parameter in in_path:
        parameter["example"] = examples.PATHS[parameter["name"]]
    if in_path:
        # A name with a slash in it is another path.
        refusals.setdefault("404", "There is no such path")
    for content_type, content in operation.get("requestBody", {}).get("content", {}).items():
        if content_type == "application/json":
            content["examples"] = {name: {"summary": name, "value": value} for name, value in examples.BODIES[endpoint].items()}
    if policy is not Access.OPEN:
        answers["422"] = {"description": "Invalid input", "content": {PROBLEM_TYPE: _PROBLEM}}
    else:
        answers.pop("422", None)
    for status, description in refusals.items():
        answers.setdefault(status, {"description": description, "content": {PROBLEM_TYPE: _PROBLEM}})


def describe(app: OpenAPI) -> None:
    """Complete the generated description with what the generator cannot know: keys, headers, problem answers."""
    description = app.api_doc
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<", "{").replace(">", "}")
        for method, operation in description["paths"].get(path, {}).items():
            if method.upper() in (rule.methods or ()):
                _complete(operation, rule.endpoint)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """Return the OpenAPI 3.1 description."""
    if not isinstance(current_app, OpenAPI):
        raise NotFound
    return json_answer(current_app.api_doc)


def _asset(body: bytes | str, content_type: str, cache_control: str) -> Response:
    answer = Response(body, content_type=content_type)
    answer.headers["Content-Security-Policy"] = _PAGE_POLICY
    answer.headers["Cache-Control"] = cache_control
    return answer


@blueprint.get("/docs")
def page() -> Response:
    """Return the page that shows the description."""
    return _asset(_PAGE, "text/html; charset=utf-8", "no-store")


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """Return a script or style of the page."""
    if name == "start.js":
        return _asset(_START, "text/javascript; charset=utf-8", "no-cache")
    if name not in _SHIPPED:
        raise NotFound
    path, content_type = _SHIPPED[name]
    return _asset(_SWAGGER.joinpath(path).read_bytes(), f"{content_type}; charset=utf-8", "public, max-age=86400")
