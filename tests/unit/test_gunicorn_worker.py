"""When a thread of the API stays on a connection for its next request, and when it does not."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.workers.gthread import _DEFER, ThreadWorker

from app.gunicorn_worker import LingeringThreadWorker
from app.patient_socket import PatientSocket

REQUEST = b"GET / HTTP/1.1\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, clients = socket.socketpair()
    with PatientSocket(ours, 1.0) as patient, clients:
        yield patient, clients


@pytest.fixture
def worker() -> Iterator[Any]:
    made = LingeringThreadWorker.__new__(LingeringThreadWorker)
    made.alive = True
    made._client_seconds = 1.0
    with ThreadPoolExecutor(1) as made.tpool:
        yield made


def serve(worker: Any, monkeypatch: pytest.MonkeyPatch, connection: socket.socket, answers: list[Any]) -> Any:
    """Handle one connection whose requests gunicorn would answer with the given results."""

    def handle(_worker: Any, conn: Any) -> Any:
        assert conn.sock.recv(len(REQUEST)) == REQUEST
        return answers.pop(0)

    monkeypatch.setattr(ThreadWorker, "handle", handle)
    return worker.handle(SimpleNamespace(sock=connection, parser=None))


def test_requests_that_come_at_once_are_served_by_the_same_thread(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].send(3 * REQUEST)
    answers = [True, True, True]
    assert serve(worker, monkeypatch, pair[0], answers) is True
    assert answers == []


@pytest.mark.parametrize("last", [False, object()])
def test_connection_that_is_not_kept_is_handed_back(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, last: object
) -> None:
    pair[1].send(2 * REQUEST)
    answers = [last, True]
    assert serve(worker, monkeypatch, pair[0], answers) is last
    assert answers == [True]


def test_thread_leaves_when_another_connection_waits_for_one(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].send(2 * REQUEST)
    worker.tpool._work_queue.put(None)
    answers = [True, True]
    assert serve(worker, monkeypatch, pair[0], answers) is True
    assert answers == [True]


def test_thread_leaves_when_the_process_is_to_end(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].send(2 * REQUEST)
    worker.alive = False
    answers = [True, True]
    assert serve(worker, monkeypatch, pair[0], answers) is True
    assert answers == [True]


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\n", b"\r\n\r\n"])
def test_connection_goes_to_the_poller_until_a_head_is_there(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    pair[1].send(begun)
    assert serve(worker, monkeypatch, pair[0], []) is _DEFER


def test_head_that_comes_behind_another_is_waited_for_by_the_poller(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].send(REQUEST + REQUEST[:5])
    assert serve(worker, monkeypatch, pair[0], [True]) is _DEFER


@pytest.mark.parametrize("sent", [REQUEST[:5], b"x" * 70_000], ids=["and no more", "too long"])
def test_head_that_will_not_come_is_left_to_gunicorn(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    pair[1].send(sent)
    if sent == REQUEST[:5]:
        pair[1].shutdown(socket.SHUT_WR)
    seen = []
    monkeypatch.setattr(ThreadWorker, "handle", lambda _worker, conn: seen.append(conn.sock.recv(5)))
    assert worker.handle(SimpleNamespace(sock=pair[0], parser=None)) is None
    assert seen == [sent[:5]]
