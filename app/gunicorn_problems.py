"""Problem answers for what gunicorn itself refuses, before the application sees a request."""

import json
import secrets
import socket
from http import HTTPStatus

from gunicorn import util

from app.security_headers import SECURITY_HEADERS


def write_problem(client: socket.socket, status: int, reason: str, message: str) -> None:
    """Answer a request that could not be parsed; the message quotes input and is left to the log.

    Args:
        client: The connection, closed by gunicorn afterwards.
        status: HTTP status.
        reason: Its phrase.
        message: What gunicorn would have said.
    """
    del message
    request_id = secrets.token_hex(16)
    code = HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    body = json.dumps(
        {
            "type": f"urn:nexus-cerebro:problem:{code}",
            "title": reason,
            "status": status,
            "detail": "the request is not well-formed HTTP, or its head is larger than this server takes",
            "code": code,
            "request_id": request_id,
        }
    ).encode()
    headers = {
        "Connection": "close",
        "Content-Type": "application/problem+json",
        "X-Request-ID": request_id,
        "Content-Length": str(len(body)),
        **SECURITY_HEADERS,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    util.write_nonblock(client, f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode("latin-1") + body)


def install() -> None:
    """Put write_problem in the place of gunicorn's HTML answer, for which gunicorn has no setting."""
    util.write_error = write_problem
