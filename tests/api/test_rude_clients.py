"""Clients that stop, dawdle, do not read or never hang up: each costs itself, and nobody else waits. Two processes have sixteen threads."""

import contextlib
import socket
import threading
import time

import pytest

from tests.factories.gunicorn import HEAD, Gunicorn

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
ALIVE = b'{"status":"alive"}'


def serves_everybody_within(gunicorn: Gunicorn, seconds: float) -> bool:
    """Return whether twenty calls, one after the other, are answered in so much time together."""
    began = time.monotonic()
    return all(gunicorn.is_alive() for _ in range(20)) and time.monotonic() - began < seconds


@pytest.mark.parametrize(
    "first",
    [
        b"",
        LIVE[:-2],
        b"\x16\x03\x01 no HTTP\r\n",
        b"\r\n\r\n\r\n",
        LIVE + LIVE[:-2],
        b"POST /memory/action HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
    ],
    ids=["silent", "half a head", "half a head that is none", "empty lines", "half a second head", "half a body without a key"],
)
def test_strangers_that_do_not_go_on_are_not_noticed(gunicorn: Gunicorn, first: bytes) -> None:
    """Whoever holds a key and sends half a body is another matter."""
    with gunicorn.clients(100, first):
        # Each of a hundred that held a thread for a second would add up to six.
        assert serves_everybody_within(gunicorn, 5)


@pytest.mark.parametrize("first", [b"GET /health/live HTTP/1.0\r\n\r\n", b"no HTTP\r\n\r\n"], ids=["answered", "refused"])
def test_clients_that_never_hang_up_hold_nobody(gunicorn: Gunicorn, first: bytes) -> None:
    with gunicorn.clients(24, first) as lasting:
        for connection in lasting:
            assert connection.recv(65536).startswith(b"HTTP/1.")
        # Two seconds for each of them is what gunicorn's main thread would wait.
        assert serves_everybody_within(gunicorn, 4)


def test_clients_that_stop_in_mid_body_do_not_hold_the_service(gunicorn: Gunicorn) -> None:
    with gunicorn.clients(48, HEAD + b"Content-Length: 1000\r\n\r\n{") as stalled:
        # Before BODY_TIMEOUT_SECONDS they hold every thread; a call waits that long, and then it is its turn.
        assert gunicorn.is_alive()
        for connection in stalled:
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("first", "byte"), [(LIVE[:-2], b"X"), (HEAD + b"Content-Length: 1000\r\n\r\n{", b" ")], ids=["in a head", "in a body"]
)
def test_clients_that_send_a_byte_now_and_then_do_not_hold_the_service(gunicorn: Gunicorn, first: bytes, byte: bytes) -> None:
    """A byte every third of the time that a request may take."""
    ended = threading.Event()

    def dawdle(connections: list[socket.socket]) -> None:
        while not ended.wait(0.3):
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.sendall(byte)

    with gunicorn.clients(48, first) as connections:
        dawdling = threading.Thread(target=dawdle, args=(connections,))
        dawdling.start()
        try:
            assert gunicorn.is_alive()
        finally:
            ended.set()
            dawdling.join()
    assert "Traceback" not in gunicorn.log()


def _ask_for_more_than_buffers_hold(port: int) -> socket.socket:
    """Return a connection that asked one question after another until no buffer took any more, and reads no answer."""
    hog = socket.socket()
    hog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    hog.connect(("127.0.0.1", port))
    hog.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            hog.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    return hog


def test_clients_that_do_not_take_up_their_answers_do_not_hold_the_service(gunicorn: Gunicorn) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(20):
            opened.enter_context(_ask_for_more_than_buffers_hold(gunicorn.port))
        # Each of them holds a thread sooner or later.
        for _ in range(25):
            assert gunicorn.is_alive()
            time.sleep(0.2)


def _is_answered(connection: socket.socket) -> bool:
    answer = b""
    while not answer.endswith(ALIVE):
        part = connection.recv(65536)
        assert part, answer
        answer += part
    return answer.startswith(b"HTTP/1.1 200")


def test_head_in_pieces_is_answered(gunicorn: Gunicorn) -> None:
    with gunicorn.connect() as connection:
        for _ in range(3):
            for piece in (LIVE[:2], LIVE[2:19], LIVE[19:26], LIVE[26:-2], LIVE[-2:-1], LIVE[-1:]):
                connection.sendall(piece)
                time.sleep(0.05)
            assert _is_answered(connection)
        # The next question comes with the end of one, in one piece, and its own end later.
        connection.sendall(LIVE + LIVE[:20])
        assert _is_answered(connection)
        time.sleep(0.1)
        connection.sendall(LIVE[20:])
        assert _is_answered(connection)


def test_half_a_head_and_then_the_end_is_no_work_for_anybody(gunicorn: Gunicorn) -> None:
    def cpu_seconds() -> float:
        return sum(sum(child.cpu_times()[:2]) for child in gunicorn.master.children())

    before = cpu_seconds()
    with gunicorn.connect() as connection:
        connection.sendall(LIVE[:-2])
        time.sleep(0.2)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536) == b""
    assert cpu_seconds() - before < 0.5


@pytest.mark.parametrize("manner", ["keep-alive", "close"])
def test_large_refused_body_is_answered_and_the_connection_is_what_was_announced(gunicorn: Gunicorn, manner: str) -> None:
    """From a client that reads no answer before it has sent everything."""
    size = 24 * 1024 * 1024
    with gunicorn.connect() as connection:
        connection.sendall(HEAD.replace(b"Connection: close", f"Connection: {manner}".encode()))
        connection.sendall(f"Content-Length: {size}\r\n\r\n".encode())
        connection.sendall(b"x" * size)
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413"), answer
        assert f"connection: {manner}".encode() in answer.lower()
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        if manner == "keep-alive":
            connection.sendall(LIVE)
            assert _is_answered(connection)
        else:
            assert connection.recv(65536) == b""
