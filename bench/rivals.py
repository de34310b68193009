"""The service beside other memories, over the same PostgreSQL server and the same weights, in one run.

`python -m bench.rivals --python PATH`, with a Python that has bench/rivals-requirements.txt; `make rivals` makes one.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from app.embedding.weights import find_weights
from app.errors import NexusError, StackError
from bench.client import Client
from bench.figures import Figure, over_rounds, percentile, ratios
from bench.machine import describe, load_average
from bench.own_stack import OwnStack, running_stack
from bench.report import Run, command_of, finish
from bench.texts import short_texts

RIVALS = ("mem0", "langgraph")
TEXTS = 2_000
SEARCHES = 200
_A_POST = 500
_PROGRAM = Path(__file__).with_name("rival_process.py")

Report = Callable[[str], None]


@click.command()
@click.option("--python", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Of the rivals' environment.")
@click.option("--rounds", type=click.IntRange(1, 9), default=2, show_default=True, help="How often each contender runs.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write every sample there.")
def main(python: Path, rounds: int, json_file: Path | None) -> None:
    """Store and search the same texts by each, in turn; everything runs on this machine."""
    console = Console(stderr=True, highlight=False)
    started, started_at, load = time.monotonic(), datetime.now(UTC), load_average()
    try:
        with running_stack(lambda line: console.print(f"[dim]{line}[/dim]")) as stack:
            figures = measure(stack, python, rounds, lambda line: console.print(f"  {line}"))
    except NexusError as error:
        raise click.ClickException(error.message) from error
    seconds = time.monotonic() - started
    run = Run(
        started_at.isoformat(timespec="seconds"), command_of("bench.rivals"), seconds, describe(), {"rivals": load}, {"rivals": figures}
    )
    finish(run, json_file)


def measure(stack: OwnStack, python: Path, rounds: int, report: Report) -> list[Figure]:
    """Return rates and times of the service and of each rival, and how many times as good the service is.

    A text counts as stored by the service when it is searchable by its vector, as it is for the rivals when their call returns; how
    soon the service acknowledges is a figure of its own.
    """
    texts = short_texts(None, TEXTS + rounds * SEARCHES)
    stored: dict[str, list[float]] = {name: [] for name in ("ours", *RIVALS)}
    found: dict[str, list[float]] = {name: [] for name in ("ours", *RIVALS)}
    acknowledged = []
    for number in range(rounds):
        queries = texts[TEXTS + number * SEARCHES :][:SEARCHES]
        stack.empty()
        with Client(stack.url, stack.headers) as client:
            began = time.perf_counter()
            for start in range(0, TEXTS, _A_POST):
                client.store_many(texts[start : min(TEXTS, start + _A_POST)])
            acknowledged.append(TEXTS / (time.perf_counter() - began))
            stack.wait_until_searchable()
            stored["ours"].append(TEXTS / (time.perf_counter() - began))
            found["ours"].append(percentile([_search(client, query) for query in queries], 0.5))
        for name in RIVALS:
            with _rival(stack, python, name) as ask:
                stored[name].append(TEXTS / sum(ask({"store": texts[:TEXTS]})))
                found[name].append(percentile(ask({"search": queries}), 0.5))
        report(f"round {number + 1}: " + ", ".join(f"{name} {stored[name][-1]:.0f}/s, {found[name][-1] * 1000:.1f} ms" for name in stored))
    return [
        over_rounds("acknowledged by the service, one client", acknowledged, "episodes/s"),
        *(over_rounds(f"stored and searchable, {name}", rates, "episodes/s") for name, rates in stored.items()),
        *(ratios(f"stored and searchable, the service to {name}", stored["ours"], stored[name]) for name in RIVALS),
        *(ratios(f"acknowledged, the service to {name}", acknowledged, stored[name]) for name in RIVALS),
        *(over_rounds(f"search, median of one client, {name}", [each * 1000 for each in times], "ms") for name, times in found.items()),
        *(ratios(f"search, how many times as long {name} takes", found[name], found["ours"]) for name in RIVALS),
    ]


def _search(client: Client, query: str) -> float:
    began = time.perf_counter()
    if not client.search(query, "hybrid"):
        raise StackError("nothing was found")
    return time.perf_counter() - began


@contextmanager
def _rival(stack: OwnStack, python: Path, name: str) -> Iterator[Callable[[Any], list[float]]]:
    """Yield what has a rival do a job and returns the seconds of each part; it has a fresh database on the stack's server."""
    process = subprocess.Popen(
        [str(python), str(_PROGRAM), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )

    def ask(job: Any) -> list[float]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise StackError(f"{name} ended; run `{python} {_PROGRAM} {name}` by hand to see why")
        seconds: list[float] = json.loads(answer)
        return seconds

    try:
        with stack.fresh_database(f"rival_{name}") as url:
            try:
                ask({"url": url, "weights": str(find_weights("").folder), "threads": 2})
                yield ask
            finally:
                process.kill()
                process.wait()
    finally:
        process.kill()


if __name__ == "__main__":
    main()
