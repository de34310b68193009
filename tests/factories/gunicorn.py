"""A real gunicorn of two processes, with the application on doubles, and clients of every manner."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
KEY = "nxs_agent_alice"
HEAD = f"POST /memory/action HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\nConnection: close\r\n".encode()
"""Of a write, without its end."""

_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Gunicorn:
    """The running server. A request's body may have 64 KiB, and a client takes a second for one at most."""

    port: int
    master: psutil.Process
    log_file: Path

    def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Return status and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, body, headers or {}, encode_chunked=True)  # type: ignore[arg-type]
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def is_alive(self) -> bool:
        """Return whether liveness is answered well, by whichever process takes the call."""
        return self.call("GET", "/health/live")[0] == 200

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    @contextmanager
    def clients(self, count: int, first: bytes) -> Iterator[list[socket.socket]]:
        """Hold connections open for as long as the block runs, each of which has sent the same bytes."""
        with ExitStack() as opened:
            connections = [opened.enter_context(self.connect()) for _ in range(count)]
            for connection in connections:
                connection.sendall(first)
            yield connections

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are and return everything that comes back until the server closes."""
        with self.connect() as connection:
            connection.sendall(request)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer

    def log(self) -> str:
        """Return everything it has logged."""
        return self.log_file.read_text()


@contextmanager
def running(folder: Path) -> Iterator[Gunicorn]:
    """Start a server on a free port, with its files in a folder, and stop it after the block."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"} | {
        "PORT": str(port),
        "DATA_DIR": str(folder),
        "SECRETS_DIR": str(folder),
        "API_PROCESSES": "2",
        "MAX_BODY_BYTES": "65536",
        "BODY_TIMEOUT_SECONDS": "1",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "app/gunicorn_config.py", "tests.api.doubles_wsgi:app"]
    log_file = folder / "log"
    with log_file.open("wb") as log, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as master:
        try:
            server = Gunicorn(port, psutil.Process(master.pid), log_file)
            _wait_until_alive(server)
            yield server
        finally:
            master.send_signal(signal.SIGTERM)
            master.wait(_PATIENCE_SECONDS)


def _wait_until_alive(server: Gunicorn) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            if server.is_alive():
                return
        except OSError:
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.1)
