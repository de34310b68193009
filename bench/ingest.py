"""How many episodes a second the API acknowledges, against raw INSERTs into the same tables with the same triggers."""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from app.errors import StackError
from app.stack.postgres import binaries
from bench import http_load
from bench.figures import Figure, over_rounds, ratios
from bench.own_stack import AGENT, OwnStack

CLIENTS = 8
BATCHES = (100, 1000)
TARGET_SINGLE = 800.0
TARGET_DRAINING = 400.0
TARGET_BATCH = 5000.0
_NICE = 10
_SECONDS = 6
_BODIES = 500
_INSERT = (
    "INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content)"
    f" VALUES ('{AGENT}', 'the pump number ' || (random() * 1e9)::int || ' was restarted after the night alarm');\n"
)
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)

Report = Callable[[str], None]


def measure(stack: OwnStack, texts: Sequence[str], rounds: int, report: Report) -> list[Figure]:
    """Return the figures of single posts and batches, without workers and while workers drain at low priority.

    Args:
        stack: Idle.
        texts: What is posted.
        rounds: How often each contender runs, in turn.
        report: Is told of each result.
    """
    singles = [orjson.dumps({"content": text}) for text in texts[:_BODIES]]
    batches = {size: _batch_bodies(texts, size) for size in BATCHES}
    raw: dict[int, list[float]] = {1: [], CLIENTS: []}
    single: list[http_load.Load] = []
    batched: dict[int, list[float]] = {size: [] for size in BATCHES}
    with stack.workers_stopped():
        for number in range(1, rounds + 1):
            for connections, samples in raw.items():
                stack.empty()
                samples.append(_raw_inserts(stack, connections))
            stack.empty()
            single.append(_load(stack, "/memory/action", singles))
            for size, bodies in batches.items():
                stack.empty()
                batched[size].append(_load(stack, "/memory/actions", bodies).requests_per_second * size)
            report(_round_line(number, single[-1], raw, batched))
        # Work for the workers of the second half: more than they can do in its time.
        stack.empty()
        _load(stack, "/memory/actions", batches[BATCHES[0]])
    stack.renice_workers(_NICE)
    draining = [_load_while_draining(stack, singles) for _ in range(rounds)]
    report(
        f"POST /memory/action while workers drain at nice {_NICE}: " + ", ".join(f"{load.requests_per_second:.0f}/s" for load in draining)
    )
    stack.empty_when_idle()
    return _figures(single, draining, raw, batched)


def _batch_bodies(texts: Sequence[str], size: int) -> list[bytes]:
    starts = range(0, max(1, len(texts) - size + 1), size)
    return [orjson.dumps({"items": [{"content": text} for text in texts[start : start + size]]}) for start in starts]


def _load(stack: OwnStack, path: str, bodies: Sequence[bytes]) -> http_load.Load:
    return http_load.run(http_load.Requests(stack.url, path, stack.headers, bodies), CLIENTS, _SECONDS)


def _load_while_draining(stack: OwnStack, bodies: Sequence[bytes]) -> http_load.Load:
    load = _load(stack, "/memory/action", bodies)
    if not stack.open_rows():
        raise StackError("the workers ran out of work: the figure would be of an idle machine")
    return load


def _raw_inserts(stack: OwnStack, connections: int) -> float:
    """Return INSERTs a second by pgbench, one row and one transaction each, as the API's role, under its row security."""
    port = stack.settings.database_url.rpartition(":")[2].partition("/")[0]
    with tempfile.TemporaryDirectory(prefix="nexus-load-") as folder:
        script = Path(folder) / "insert.sql"
        script.write_text(_INSERT, encoding="utf-8")
        command = [str(binaries() / "pgbench"), "-n", "-h", "127.0.0.1", "-p", port, "-U", "nexus_app", "-f", str(script)]
        command += ["-c", str(connections), "-j", "1", "-T", str(_SECONDS), "nexus_memory"]
        secrets = {"PGPASSWORD": stack.settings.secret("pg_app_password"), "PGOPTIONS": f"-c app.current_agent_id={AGENT}"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **secrets})
    found = _TPS.search(done.stdout)
    if done.returncode != 0 or found is None:
        raise StackError(f"pgbench failed: {done.stderr.strip()[-300:]}")
    return float(found[1])


def _round_line(number: int, single: http_load.Load, raw: dict[int, list[float]], batched: dict[int, list[float]]) -> str:
    inserts = ", ".join(f"{samples[-1]:.0f}/s ({connections} connections)" for connections, samples in raw.items())
    batches = ", ".join(f"{samples[-1]:.0f}/s (batches of {size})" for size, samples in batched.items())
    return f"round {number}: single posts {single.requests_per_second:.0f}/s, {batches}; raw INSERT {inserts}"


def _figures(
    single: Sequence[http_load.Load], draining: Sequence[http_load.Load], raw: dict[int, list[float]], batched: dict[int, list[float]]
) -> list[Figure]:
    unit = "episodes/s"
    rates = [load.requests_per_second for load in single]
    client = f"{CLIENTS} clients, {http_load.generator()}"
    figures = [
        over_rounds("POST /memory/action, workers stopped", rates, unit, TARGET_SINGLE, client),
        Figure("POST /memory/action, workers stopped, p50", max(load.p50_ms for load in single), "ms", note="the worst round"),
        Figure("POST /memory/action, workers stopped, p99", max(load.p99_ms for load in single), "ms", note="the worst round"),
        over_rounds(
            f"POST /memory/action, workers draining at nice {_NICE}",
            [load.requests_per_second for load in draining],
            unit,
            TARGET_DRAINING,
            client,
        ),
        *(
            over_rounds(f"POST /memory/actions, batches of {size}", samples, unit, TARGET_BATCH, client)
            for size, samples in batched.items()
        ),
    ]
    for connections, samples in raw.items():
        name = f"raw INSERT with triggers, {connections} connection{'s' if connections > 1 else ''}"
        figures.append(over_rounds(name, samples, unit, note="pgbench"))
        figures.append(ratios(f"POST /memory/action, ratio to {name}", rates, samples))
    return figures
