"""Reading a request's body: strict JSON, bounded size, nothing guessed."""

from typing import Any

import orjson
from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from app.errors import InvalidRequest, MalformedBody


class StrictRequest(Request):
    """A request whose JSON is UTF-8, an object, and without NaN, Infinity, lone surrogates or numbers beyond a double."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the body's object; the arguments, which the router passes, change nothing.

        Raises:
            UnsupportedMediaType: The body is not declared as JSON.
            RequestEntityTooLarge: It is larger than MAX_BODY_BYTES, whether or not it said so beforehand.
            MalformedBody: It is not JSON.
            InvalidRequest: It is JSON and not an object.
        """
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
        body = self.get_data(cache=False)
        # A chunked body that is too long is cut at the limit without an error (werkzeug 3.1, LimitedStream.readall).
        if self.content_length is None and self.max_content_length is not None and len(body) >= self.max_content_length:
            raise RequestEntityTooLarge
        return body
