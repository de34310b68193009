"""Two gunicorn processes: their counters are summed, a killed one's too, and bodies without a length are bounded."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.factories.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
HEADERS = {"X-API-Key": "nxs_agent_alice", "Content-Type": "application/json"}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _call(
    port: int, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, timeout: float = 10.0
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {}, encode_chunked=True)  # type: ignore[arg-type]
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _stored(port: int) -> float:
    text = _call(port, "GET", "/metrics")[1]
    return sum(float(value) for value in re.findall(r'^api_requests_total\{.*status="201".*\} (\S+)$', text, re.MULTILINE))


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A running gunicorn of two processes: its port and its master."""
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"} | {
        "PORT": str(port),
        "DATA_DIR": str(tmp_path),
        "SECRETS_DIR": str(tmp_path),
        "API_PROCESSES": "2",
        "MAX_BODY_BYTES": "65536",
        "BODY_TIMEOUT_SECONDS": "1",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "app/gunicorn_config.py", "tests.api.doubles_wsgi:app"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as master:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    if _call(port, "GET", "/health/live")[0] == 200:
                        break
                except OSError:
                    assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                    time.sleep(0.1)
            yield port, psutil.Process(master.pid)
        finally:
            master.send_signal(signal.SIGTERM)
            master.wait(30)


def test_counters_of_all_processes_are_summed_and_survive_a_kill(gunicorn: tuple[int, psutil.Process], tmp_path: Path) -> None:
    port, master = gunicorn
    for _ in range(40):
        assert _call(port, "POST", "/memory/action", b'{"content": "my diary"}', HEADERS)[0] == 201
    assert [_stored(port) for _ in range(4)] == [40.0] * 4
    victim = master.children()[0]
    victim.kill()
    wait_until(lambda: len({child.pid for child in master.children()} - {victim.pid}) == 2, 20, "another process in the victim's place")
    assert [_stored(port) for _ in range(4)] == [40.0] * 4
    log = (tmp_path / "log").read_text()
    assert log.count('"url_rule":"/memory/action"') == 40
    assert "my diary" not in log


def test_chunked_body_is_bounded(gunicorn: tuple[int, psutil.Process]) -> None:
    port, _ = gunicorn
    small = iter([b'{"content": ', b'"in pieces"}'])
    assert _call(port, "POST", "/memory/action", small, HEADERS | {"Transfer-Encoding": "chunked"})[0] == 201
    large = iter([b'{"content": "', *[b"x" * 8192] * 16, b'"}'])
    status, body = _call(port, "POST", "/memory/action", large, HEADERS | {"Transfer-Encoding": "chunked"})
    assert status == 413
    assert "body_too_large" in body


def _raw(port: int, request: bytes, timeout: float = 10.0) -> bytes:
    """Send bytes as they are and return everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


HEAD = b"POST /memory/action HTTP/1.1\r\nHost: x\r\nX-API-Key: nxs_agent_alice\r\nContent-Type: application/json\r\nConnection: close\r\n"


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
def test_malformed_http_is_a_problem_too(gunicorn: tuple[int, psutil.Process], request_bytes: bytes, status: int) -> None:
    head, _, body = _raw(gunicorn[0], request_bytes).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status), head
    assert b"application/problem+json" in head
    assert b"x-request-id" in head.lower()
    assert f'"status": {status}'.encode() in body.replace(b'":', b'": ').replace(b":  ", b": ")


def test_log_quotes_nothing_of_a_malformed_request(gunicorn: tuple[int, psutil.Process], tmp_path: Path) -> None:
    for request in (
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: my secret\r\n\r\n",
        b"GET /my secret HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nmy secret\r\n\r\n",
    ):
        assert _raw(gunicorn[0], request).startswith(b"HTTP/1.1 4")
    log = (tmp_path / "log").read_text()
    assert log.count("a malformed request was refused") == 3
    assert "secret" not in log


def test_clients_that_stop_in_mid_body_do_not_hold_the_service(gunicorn: tuple[int, psutil.Process]) -> None:
    port = gunicorn[0]
    stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(48)]
    try:
        for connection in stalled:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        # Before BODY_TIMEOUT_SECONDS they hold every thread; a call waits that long, and then it is its turn.
        assert _call(port, "GET", "/health/live")[0] == 200
        for connection in stalled:
            connection.settimeout(20)
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")
    finally:
        for connection in stalled:
            connection.close()


class Dawdlers(threading.Thread):
    """Clients that send a byte each every third of the time that a request may take."""

    def __init__(self, port: int, first: bytes, byte: bytes) -> None:
        super().__init__()
        self._connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(48)]
        self._byte = byte
        self._ended = threading.Event()
        for connection in self._connections:
            connection.sendall(first)

    def run(self) -> None:
        while not self._ended.wait(0.3):
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.sendall(self._byte)

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        for connection in self._connections:
            connection.close()


@pytest.mark.parametrize(
    ("first", "byte"),
    [(b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"X"), (HEAD + b"Content-Length: 1000\r\n\r\n{", b" ")],
    ids=["head", "body"],
)
def test_clients_that_send_a_byte_now_and_then_do_not_hold_the_service(
    gunicorn: tuple[int, psutil.Process], tmp_path: Path, first: bytes, byte: bytes
) -> None:
    with Dawdlers(gunicorn[0], first, byte):
        assert _call(gunicorn[0], "GET", "/health/live")[0] == 200
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\n",
        b"\x16\x03\x01 no HTTP\r\n",
        b"\r\n\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /health/live HTTP/1.1\r\n",
        b"POST /memory/action HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
    ],
    ids=["silent", "half a head", "half a head that is none", "empty lines", "half a second head", "half a body without a key"],
)
def test_strangers_that_do_not_go_on_are_not_noticed(gunicorn: tuple[int, psutil.Process], first: bytes) -> None:
    """A hundred of them, for sixteen threads; whoever holds a key and sends half a body is another matter."""
    port = gunicorn[0]
    strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        for stranger in strangers:
            stranger.sendall(first)
        began = time.monotonic()
        for _ in range(20):
            assert _call(port, "GET", "/health/live")[0] == 200
        # Each of a hundred that held a thread for a second would add up to six.
        assert time.monotonic() - began < 5
    finally:
        for stranger in strangers:
            stranger.close()


def _answers_alive(connection: socket.socket) -> bool:
    answer = b""
    while not answer.endswith(b'{"status":"alive"}'):
        part = connection.recv(65536)
        assert part, answer
        answer += part
    return answer.startswith(b"HTTP/1.1 200")


def test_head_in_pieces_is_answered(gunicorn: tuple[int, psutil.Process]) -> None:
    with socket.create_connection(("127.0.0.1", gunicorn[0]), timeout=10) as connection:
        for _ in range(3):
            for piece in (b"GE", b"T /health/live HT", b"TP/1.1\r\n", b"Host: x\r\n", b"\r", b"\n"):
                connection.sendall(piece)
                time.sleep(0.05)
            assert _answers_alive(connection)
        # The next question comes with the end of one, in one piece, and its own end later.
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /health/live HT")
        assert _answers_alive(connection)
        time.sleep(0.1)
        connection.sendall(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert _answers_alive(connection)


def test_half_a_head_and_then_the_end_is_no_work_for_anybody(gunicorn: tuple[int, psutil.Process]) -> None:
    port, master = gunicorn
    before = sum(sum(child.cpu_times()[:2]) for child in master.children())
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\n")
        time.sleep(0.2)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536) == b""
    assert sum(sum(child.cpu_times()[:2]) for child in master.children()) - before < 0.5


def _hog(port: int) -> socket.socket:
    """A client that asks one question after another until no buffer takes any more, and reads no answer."""
    hog = socket.socket()
    hog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    hog.connect(("127.0.0.1", port))
    hog.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            hog.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    return hog


def test_clients_that_do_not_take_up_their_answers_do_not_hold_the_service(gunicorn: tuple[int, psutil.Process]) -> None:
    port = gunicorn[0]
    hogs = [_hog(port) for _ in range(20)]
    try:
        # Each of them holds a thread sooner or later, and there are sixteen.
        for _ in range(25):
            assert _call(port, "GET", "/health/live", timeout=15)[0] == 200
            time.sleep(0.2)
    finally:
        for hog in hogs:
            hog.close()


@pytest.mark.parametrize("request_bytes", [b"GET /health/live HTTP/1.0\r\n\r\n", b"no HTTP\r\n\r\n"], ids=["answered", "refused"])
def test_clients_that_never_hang_up_hold_nobody(gunicorn: tuple[int, psutil.Process], request_bytes: bytes) -> None:
    port = gunicorn[0]
    lasting = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(24)]
    try:
        for connection in lasting:
            connection.sendall(request_bytes)
        for connection in lasting:
            assert connection.recv(65536).startswith(b"HTTP/1.")
        began = time.monotonic()
        for _ in range(20):
            assert _call(port, "GET", "/health/live")[0] == 200
        # Two seconds for each of them is what gunicorn's main thread would wait.
        assert time.monotonic() - began < 4
    finally:
        for connection in lasting:
            connection.close()


@pytest.mark.parametrize("manner", ["keep-alive", "close"])
def test_large_refused_body_is_answered_and_the_connection_is_what_was_announced(gunicorn: tuple[int, psutil.Process], manner: str) -> None:
    """From a client that reads no answer before it has sent everything."""
    size = 24 * 1024 * 1024
    head = HEAD.replace(b"Connection: close", f"Connection: {manner}".encode()) + f"Content-Length: {size}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", gunicorn[0]), timeout=10) as connection:
        connection.sendall(head)
        connection.sendall(b"x" * size)
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413"), answer
        assert f"connection: {manner}".encode() in answer.lower()
        if manner == "keep-alive":
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        else:
            assert connection.recv(65536) == b""
