"""When a thread of the API stays on a connection for its next request, and when it does not."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker

from app.gunicorn_worker import LingeringThreadWorker


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, clients = socket.socketpair()
    with ours, clients:
        yield ours, clients


@pytest.fixture
def worker() -> Iterator[Any]:
    made = LingeringThreadWorker.__new__(LingeringThreadWorker)
    made.alive = True
    with ThreadPoolExecutor(1) as made.tpool:
        yield made


def serve(worker: Any, monkeypatch: pytest.MonkeyPatch, connection: socket.socket, answers: list[Any]) -> Any:
    """Handle one connection whose requests gunicorn would answer with the given results, one byte a request."""

    def handle(_worker: Any, conn: Any) -> Any:
        conn.sock.recv(1)
        return answers.pop(0)

    monkeypatch.setattr(ThreadWorker, "handle", handle)
    return worker.handle(SimpleNamespace(sock=connection))


def test_requests_that_come_at_once_are_served_by_the_same_thread(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].send(b"123")
    answers = [True, True, True]
    assert serve(worker, monkeypatch, pair[0], answers) is True
    assert answers == []


@pytest.mark.parametrize("last", [False, object()])
def test_connection_that_is_not_kept_is_handed_back(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, last: object
) -> None:
    pair[1].send(b"12")
    answers = [last, True]
    assert serve(worker, monkeypatch, pair[0], answers) is last
    assert answers == [True]


def test_thread_leaves_when_another_connection_waits_for_one(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].send(b"12")
    worker.tpool._work_queue.put(None)
    answers = [True, True]
    assert serve(worker, monkeypatch, pair[0], answers) is True
    assert answers == [True]


def test_thread_leaves_when_the_process_is_to_end(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].send(b"12")
    worker.alive = False
    answers = [True, True]
    assert serve(worker, monkeypatch, pair[0], answers) is True
    assert answers == [True]
