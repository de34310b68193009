"""Reading a request's body: strict JSON, bounded size, nothing guessed."""

from typing import Any

import orjson
from flask import Request, current_app
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge, RequestTimeout, UnsupportedMediaType

from app.errors import InvalidRequest, MalformedBody


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
        connection = self.environ.get("gunicorn.socket")
        if connection is not None:
            # Otherwise a client that sends half a body and waits would hold a thread for ever.
            connection.settimeout(current_app.config["BODY_TIMEOUT_SECONDS"])
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
