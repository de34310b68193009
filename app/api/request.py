"""Reading a request: strict JSON of a bounded size, no parameter that its route does not know, nothing guessed."""

from collections.abc import Iterable
from functools import cache
from inspect import signature
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from flask import Flask, Request, current_app, request
from gunicorn.http.errors import ParseException
from pydantic import BaseModel
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge, RequestTimeout, UnsupportedMediaType

from app.api.policies import ROUTE_POLICIES, Access
from app.errors import InvalidRequest, MalformedBody

_MAX_NAMES = 50
_MAX_NAME_CHARS = 128


class StrictRequest(Request):
    """A request whose JSON is UTF-8, an object, and without NaN, Infinity, lone surrogates or numbers beyond a double."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the body's object; the arguments, which the router passes, change nothing.

        Raises:
            UnsupportedMediaType: The body is not declared as JSON.
            RequestEntityTooLarge: It is larger than MAX_BODY_BYTES, whether or not it said so beforehand.
            RequestTimeout: The client stopped sending in the middle of it.
            MalformedBody: It is not JSON, or not well-formed HTTP.
            InvalidRequest: It is JSON and not an object.
        """
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("a compressed body is not taken; send it plain")
        if not self.is_json:
            raise UnsupportedMediaType("the body must be sent as application/json")
        try:
            value = orjson.loads(self._whole_body())
        except orjson.JSONDecodeError as error:
            # The parser's message never quotes the body, only says what is wrong and where.
            raise MalformedBody(f"the body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
        if not isinstance(value, dict):
            raise InvalidRequest("the body must be a JSON object")
        return value

    def _whole_body(self) -> bytes:
        try:
            body = self.get_data(cache=False)
        except (TimeoutError, ClientDisconnected):
            # werkzeug calls both a disconnection; a client that really left will not read the answer.
            raise RequestTimeout("the body did not arrive in time") from None
        except ParseException:
            raise MalformedBody("the body's chunks are not well-formed HTTP") from None
        # A chunked body that is too long is cut at the limit without an error (werkzeug 3.1, LimitedStream.readall).
        if self.content_length is None and self.max_content_length is not None and len(body) >= self.max_content_length:
            raise RequestEntityTooLarge
        return body


def refuse_parameters() -> None:
    """Refuse a path or query string that is not UTF-8, and a query string of which something would be ignored.

    That is any parameter where the route takes none, and a second value where it takes one; unknown names beside known ones are
    refused by the route's model. Open routes are left alone: a probe may add whatever keeps it from being cached.

    Raises:
        InvalidRequest: Names the parameters, or what is not UTF-8.
    """
    if request.endpoint is None or ROUTE_POLICIES.get(request.endpoint) is Access.OPEN:
        return
    # WSGI hands bytes on as the characters of latin-1.
    _refuse_other_than_utf_8("path", request.environ["PATH_INFO"].encode("latin-1"))
    _refuse_other_than_utf_8("query string", unquote_to_bytes(request.query_string))
    if not request.args:
        return
    query = signature(current_app.view_functions[request.endpoint]).parameters.get("query")
    if query is None:
        _refuse(request.args, "unknown_field", "is not a known parameter; this route takes none in its query")
        return
    lists = _lists_of(query.annotation)
    _refuse(
        [name for name, values in request.args.lists() if len(values) > 1 and name not in lists],
        "repeated",
        "is given more than once; this route takes one value",
    )


def _refuse_other_than_utf_8(part: str, text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError:
        # werkzeug would put a sign of its own in the place of each, and something else would be looked for than was asked.
        raise InvalidRequest(f"the {part} is not UTF-8") from None


def _refuse(names: Iterable[str], code: str, message: str) -> None:
    fields = sorted({name[:_MAX_NAME_CHARS] for name in names})[:_MAX_NAMES]
    if fields:
        raise InvalidRequest(
            "; ".join(f"{field}: {message}" for field in fields[:5]),
            errors=[{"field": field, "code": code, "message": message} for field in fields],
        )


@cache
def _lists_of(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the parameters that may be repeated."""
    properties = model.model_json_schema()["properties"]
    return frozenset(
        name for name, schema in properties.items() if any(choice.get("type") == "array" for choice in (schema, *schema.get("anyOf", ())))
    )


def install(app: Flask) -> None:
    """Check the parameters of every request; this must come after the caller's rights are known."""
    app.before_request(refuse_parameters)
