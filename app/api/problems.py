"""The one place where errors become HTTP: RFC 9457 problem answers with a stable code."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NoReturn

import structlog
from flask import Flask, Response, g
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app import errors
from app.api.answers import json_answer

PROBLEM_TYPE = "application/problem+json"

STATUS_OF_ERROR: Mapping[type[errors.NexusError], HTTPStatus] = {
    errors.MalformedBody: HTTPStatus.BAD_REQUEST,
    errors.ContentTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.PermissionDenied: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Gone: HTTPStatus.GONE,
    errors.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.NexusError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""An error without an entry of its own takes that of its nearest base class."""

_CODE_OF_STATUS = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
}
_MESSAGE_OF_TYPE = {
    "extra_forbidden": "is not a known field",
    "missing": "is needed",
    "string_pattern_mismatch": "must not be blank, must not hold a NUL character and must have the form the API description gives",
}
_CODE_OF_TYPE = {"extra_forbidden": "unknown_field", "string_pattern_mismatch": "bad_format"}
_MAX_ERRORS = 50
_MAX_ERRORS_OF_ITEM = 5
_MAX_FIELD_CHARS = 128


def status_of(error: errors.NexusError) -> HTTPStatus:
    """Return the HTTP status of an error."""
    return next(STATUS_OF_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_OF_ERROR)


def problem(status: int, code: str, detail: str, extra: Mapping[str, Any] | None = None) -> Response:
    """Return a problem answer.

    Args:
        status: HTTP status.
        code: Stable word for programs.
        detail: What happened and what the caller can do about it.
        extra: Further members, for example `errors`; they cannot replace the standard ones.
    """
    body = {
        **(extra or {}),
        "type": f"urn:nexus-cerebro:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": g.get("request_id", ""),
    }
    return json_answer(body, status, PROBLEM_TYPE)


def _is_too_large(error: ErrorDetails) -> bool:
    return error["type"] == "content_too_large" or (error["type"] == "string_too_long" and error["loc"][-1:] == ("content",))


def _field_problem(error: ErrorDetails, location: Sequence[int | str]) -> dict[str, Any]:
    kind = error["type"]
    code = "content_too_large" if _is_too_large(error) else _CODE_OF_TYPE.get(kind, kind)
    field = ".".join(map(str, location))[:_MAX_FIELD_CHARS]
    return {"field": field, "code": code, "message": _MESSAGE_OF_TYPE.get(kind, error["msg"])}


def _item_problems(found: Sequence[ErrorDetails]) -> list[dict[str, Any]]:
    by_index: dict[int, list[dict[str, Any]]] = {}
    for error in found:
        index = int(error["loc"][1])
        listed = by_index.setdefault(index, [])
        if len(listed) < _MAX_ERRORS_OF_ITEM:
            listed.append({"index": index, **_field_problem(error, error["loc"][2:])})
    return [entry for index in sorted(by_index) for entry in by_index[index]]


def raise_invalid(error: ValidationError) -> NoReturn:
    """Raise what the validation error means to the caller; no input is quoted, since it is memory content.

    Raises:
        InvalidItems: Items of a batch are wrong; every bad index is named.
        ContentTooLarge: The content is longer than an episode may be.
        InvalidRequest: Anything else.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    in_items = [entry for entry in found if len(entry["loc"]) > 1 and entry["loc"][0] == "items" and isinstance(entry["loc"][1], int)]
    if in_items and len(in_items) == len(found):
        listed = _item_problems(in_items)
        indexes = sorted({entry["index"] for entry in listed})
        shown = ", ".join(map(str, indexes[:20])) + (", ..." if len(indexes) > 20 else "")
        raise errors.InvalidItems(f"{len(indexes)} items are wrong and nothing was stored: {shown}", listed)
    listed = [_field_problem(entry, entry["loc"]) for entry in found[:_MAX_ERRORS]]
    detail = "; ".join(f"{entry['field']}: {entry['message']}" if entry["field"] else entry["message"] for entry in listed[:5])
    kind = errors.ContentTooLarge if any(map(_is_too_large, found)) else errors.InvalidRequest
    raise kind(detail, errors=listed)


def _on_nexus_error(error: errors.NexusError) -> Response:
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        structlog.get_logger().warning("request_failed", code=error.code, exc_info=error)
    answer = problem(status, error.code, error.message, error.details)
    if isinstance(error, errors.Unavailable | errors.RateLimited):
        answer.headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.Unauthenticated):
        answer.headers["WWW-Authenticate"] = 'Bearer realm="nexus-cerebro"'
    return answer


def _on_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    code = _CODE_OF_STATUS.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_"))
    if isinstance(error, RequestEntityTooLarge):
        detail = "the body is larger than this server takes; send fewer items at a time"
    elif status == 404:
        detail = "there is no such route"
    else:
        detail = error.description or HTTPStatus(status).phrase
    answer = problem(status, code, detail)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            answer.headers[name] = value
    return answer


def _on_unexpected(error: Exception) -> Response:
    structlog.get_logger().error("request_crashed", exc_info=error)
    return problem(500, "internal_error", "an unexpected error happened; the log has it under this request_id")


def install(app: Flask) -> None:
    """Make every error of the application a problem answer."""
    app.register_error_handler(errors.NexusError, _on_nexus_error)
    app.register_error_handler(HTTPException, _on_http_exception)
    app.register_error_handler(Exception, _on_unexpected)
