"""The command line of the benchmark: `python -m bench [PART]`."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from app.errors import NexusError
from bench import claims, drain, identity, ingest, latency, quality, reconcile, scale, search
from bench.figures import Figure
from bench.machine import describe, load_average
from bench.own_stack import OwnStack, running_stack
from bench.report import IN_ALL, PARTS, TITLES, Run, command_of, finish
from bench.texts import long_texts, short_texts

_SETTINGS: dict[str, dict[str, Any]] = {
    "scale": {"worker_replicas": max(scale.WORKERS), "embedding_threads": 1},
    "reconcile": {"redis_memory_mb": 2048},
}


@click.command()
@click.argument("part", type=click.Choice([*PARTS, "all"]), default="all")
@click.option("--texts", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="JSON lines (.gz too) with `text`.")
@click.option("--rounds", type=click.IntRange(1, 9), default=2, show_default=True, help="How often each contender runs.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write every sample there.")
def main(part: str, texts: Path | None, rounds: int, json_file: Path | None) -> None:
    """Measure this machine against the targets, on a stack of the benchmark's own. Takes about ten minutes on two cores."""
    console = Console(stderr=True, highlight=False)
    started, started_at = time.monotonic(), datetime.now(UTC)
    loads: dict[str, float] = {}
    figures: dict[str, list[Figure]] = {}
    try:
        for name in IN_ALL if part == "all" else (part,):
            loads[name] = load_average()
            console.print(f"[bold]{TITLES[name]}[/bold] (load average {loads[name]:.1f})")
            with running_stack(lambda line: console.print(f"[dim]{line}[/dim]"), **_SETTINGS.get(name, {})) as stack:
                figures[name] = _measure(name, stack, texts, rounds, console)
    except NexusError as error:
        raise click.ClickException(error.message) from error
    seconds = time.monotonic() - started
    finish(Run(started_at.isoformat(timespec="seconds"), command_of("bench"), seconds, describe(), loads, figures), json_file)


def _measure(part: str, stack: OwnStack, texts: Path | None, rounds: int, console: Console) -> list[Figure]:
    def report(line: str) -> None:
        console.print(f"  {line}")

    def drained() -> list[Figure]:
        short = short_texts(texts)
        long = long_texts(short)
        mean = sum(map(len, short)) // len(short)
        kinds = ((f"{len(short):,} texts of about {mean} characters", short), (f"{len(long):,} texts of about 250 characters", long))
        return drain.Contest(stack, rounds, report).measure(kinds)

    parts: dict[str, Callable[[], list[Figure]]] = {
        "drain": drained,
        "ingest": lambda: ingest.measure(stack, short_texts(texts), rounds, report),
        "latency": lambda: latency.measure(stack, short_texts(texts), report),
        "claims": lambda: claims.measure(stack, report),
        "scale": lambda: scale.measure(stack, short_texts(texts), rounds, report),
        "search": lambda: search.measure(stack, texts, report),
        "million": lambda: search.measure_million(stack, report),
        "quality": lambda: quality.measure(stack, short_texts(texts), report),
        "identity": lambda: identity.measure(stack, report),
        "reconcile": lambda: reconcile.measure(stack, report),
    }
    return parts[part]()


if __name__ == "__main__":
    main()
