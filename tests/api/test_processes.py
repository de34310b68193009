"""Two gunicorn processes: their counters are summed, a killed one's too; what is no HTTP, or too much of it, is refused as a problem."""

import re

import pytest

from tests.factories.gunicorn import HEAD, KEY, Gunicorn
from tests.factories.processes import wait_until

HEADERS = {"X-API-Key": KEY, "Content-Type": "application/json"}


def _stored(gunicorn: Gunicorn) -> float:
    text = gunicorn.call("GET", "/metrics")[1]
    return sum(float(value) for value in re.findall(r'^api_requests_total\{.*status="201".*\} (\S+)$', text, re.MULTILINE))


def test_counters_of_all_processes_are_summed_and_survive_a_kill(gunicorn: Gunicorn) -> None:
    for _ in range(40):
        assert gunicorn.call("POST", "/memory/action", b'{"content": "my diary"}', HEADERS)[0] == 201
    assert [_stored(gunicorn) for _ in range(4)] == [40.0] * 4
    victim = gunicorn.master.children()[0]
    victim.kill()
    wait_until(
        lambda: len({child.pid for child in gunicorn.master.children()} - {victim.pid}) == 2, 20, "another process in the victim's place"
    )
    assert [_stored(gunicorn) for _ in range(4)] == [40.0] * 4
    assert gunicorn.log().count('"url_rule":"/memory/action"') == 40
    assert "my diary" not in gunicorn.log()


def test_chunked_body_is_bounded(gunicorn: Gunicorn) -> None:
    chunked = HEADERS | {"Transfer-Encoding": "chunked"}
    assert gunicorn.call("POST", "/memory/action", iter([b'{"content": ', b'"in pieces"}']), chunked)[0] == 201
    large = iter([b'{"content": "', *[b"x" * 8192] * 16, b'"}'])
    status, body = gunicorn.call("POST", "/memory/action", large, chunked)
    assert status == 413
    assert "body_too_large" in body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n0\r\n\r\n", 400),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-A%d: 1\r\n" % n for n in range(80)) + b"\r\n", 431),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (HEAD + b'Content-Length: 100\r\n\r\n{"content":', 408),
    ],
)
def test_malformed_http_is_a_problem_too(gunicorn: Gunicorn, request_bytes: bytes, status: int) -> None:
    head, _, body = gunicorn.raw(request_bytes).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status), head
    assert b"application/problem+json" in head
    assert b"x-request-id" in head.lower()
    assert f'"status": {status}'.encode() in body.replace(b'":', b'": ').replace(b":  ", b": ")


def test_log_quotes_nothing_of_a_malformed_request(gunicorn: Gunicorn) -> None:
    for request in (
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: my secret\r\n\r\n",
        b"GET /my secret HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nmy secret\r\n\r\n",
    ):
        assert gunicorn.raw(request).startswith(b"HTTP/1.1 4")
    assert gunicorn.log().count("a malformed request was refused") == 3
    assert "secret" not in gunicorn.log()
