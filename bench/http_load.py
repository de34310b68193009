"""Load over HTTP: wrk where it is installed, else threads of this process. Both cycle through prepared bodies."""

import http.client
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.errors import StackError

_SCRIPT = """
local bodies, at = {}, 0
for line in io.lines(os.getenv("BENCH_BODIES")) do bodies[#bodies + 1] = line end
wrk.method = "POST"
request = function()
  at = at % #bodies + 1
  return wrk.format(nil, os.getenv("BENCH_PATH"), nil, bodies[at])
end
done = function(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format('\\nRESULT {"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
"""


@dataclass(frozen=True)
class Requests:
    """What is posted: where to (the API's URL without a path, then the path), with which headers, and JSON bodies, sent in turn."""

    url: str
    path: str
    headers: Mapping[str, str]
    bodies: Sequence[bytes]


@dataclass(frozen=True)
class Load:
    """What a run of load brought; `failed` counts answers that were no success, and broken connections."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def requests_per_second(self) -> float:
        """Answered requests a second."""
        return self.requests / self.seconds


def generator() -> str:
    """Return what makes the load on this machine, for the report."""
    return "wrk" if shutil.which("wrk") else "threads of Python (install wrk for a client that costs less)"


def run(requests: Requests, clients: int, seconds: int) -> Load:
    """Return what `clients` connections, each with one request at a time, get through.

    Raises:
        StackError: Any request failed: the figure would be of another job.
    """
    load = (_wrk if shutil.which("wrk") else _threads)(requests, clients, seconds)
    if load.failed:
        raise StackError(f"{load.failed} of {load.requests} requests to {requests.path} failed")
    return load


def _wrk(requests: Requests, clients: int, seconds: int) -> Load:
    with tempfile.TemporaryDirectory(prefix="nexus-load-") as folder:
        script, lines = Path(folder) / "post.lua", Path(folder) / "bodies.txt"
        script.write_text(_SCRIPT, encoding="utf-8")
        lines.write_bytes(b"\n".join(requests.bodies) + b"\n")
        named = [part for name, value in requests.headers.items() for part in ("-H", f"{name}: {value}")]
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}", "--timeout", "30", "-s", str(script), *named, requests.url]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            env={"BENCH_BODIES": str(lines), "BENCH_PATH": requests.path, "PATH": "/usr/bin:/bin"},
        )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return Load(**json.loads(line.removeprefix("RESULT ")))
    raise StackError(f"wrk failed: {done.stderr.strip()[:300]}")


def _threads(requests: Requests, clients: int, seconds: int) -> Load:
    latencies: list[float] = []
    failures: list[int] = []
    started = time.perf_counter()

    def send(number: int) -> None:
        parts = urlsplit(requests.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        at = number
        while time.perf_counter() - started < seconds:
            sent = time.perf_counter()
            try:
                connection.request("POST", requests.path, requests.bodies[at % len(requests.bodies)], dict(requests.headers))
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                failures.append(0)
                connection.close()
                continue
            latencies.append(time.perf_counter() - sent)
            if answer.status >= 300:
                failures.append(answer.status)
            at += clients
        connection.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - started
    if not latencies:
        raise StackError("the API answered no request")
    latencies.sort()
    middle, last = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
    return Load(len(latencies), taken, middle * 1000, last * 1000, len(failures))
