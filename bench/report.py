"""The report of runs: a table for the terminal, JSON for programs, a page for the documentation."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import Figure

TITLES = {
    "drain": "Drain: stored and searchable per second",
    "ingest": "Acknowledged writes",
    "latency": "Latency",
    "claims": "Claims: one claim of 256 rows",
    "scale": "Scale-out: the drain by number of worker processes",
    "search": "Search over 100,000 episodes of 1,000 agents, one of which has 30 % of them",
    "million": "Search over 1,000,000 episodes of 1,000 agents, one of which has 30 % of them, with made vectors",
    "quality": "Quality: Spanish questions, and vectors beside sentence-transformers' own",
    "identity": "The accounting identity",
    "reconcile": "Reconciliation of working memory with Redis, and of episodes with their vectors",
    "rivals": "Beside mem0 and LangGraph's store, with the same weights and the same PostgreSQL",
}
"""The parts in the order of the report."""

PARTS = tuple(part for part in TITLES if part != "rivals")
"""What `python -m bench` can measure; the rivals need an environment of their own."""

IN_ALL = tuple(part for part in PARTS if part != "million")
"""The parts of a run without a name; the other takes longer than they do together."""

LIMITS = {
    "identity": "PostgreSQL reads every episode's row and every row of the ledger, with as many processes as it has cores; of the queue "
    "only unfinished work.",
    "reconcile": "Without a difference, Redis' one thread, which hashes every value, and PostgreSQL's reading of every row; with one row "
    "in a hundred damaged, every portion of 1,000 differs, so every key is looked at one by one.",
    "drain": "The two cores, of which the stack used more than four fifths: a worker spends about 60 % of its time in the model's forward "
    "pass and 27 % waiting for its inserts into the HNSW index (about 1.7 ms of a core each); claim, broker, start and finish share the "
    "rest, and it waits for a message for about 3 %. Bare `encode()` on its own sorts all its texts by length, writes nothing and has both "
    "cores for itself. Long texts are bound by the forward pass.",
    "ingest": "The two cores, shared by the load generator, gunicorn and PostgreSQL. One post costs about 1.4 ms of a core in the API "
    "(gunicorn and its threads 0.4, Flask, validation and logs 0.4, the transaction 0.5, Redis 0.1), 0.9 ms in PostgreSQL (the row with "
    "its words and indexes, the queue row, the ledger row, the commit) and 0.1 ms in the supervisor, which reads the log line. "
    "A batch pays all of that but the rows once.",
    "latency": "A lone post passes the doorbell, the claim, the broker, one forward pass and two short transactions; in a traced post the "
    "forward pass took nearly half of the time, the rest was spread over about fifteen round trips. The waiting client searches without a "
    "pause and so takes a share of the same two cores. Searches are for information: every query is new, so each is encoded, and with ten "
    "clients ten share the two cores.",
    "claims": "Updating 256 rows and their index entries. Without the low-water mark each claim under a held snapshot would read the "
    "entries of all finished rows again.",
    "search": "The cores. A search over 2,000 episodes of one agent spent 29 % of its time in the query's forward pass, which queries "
    "that come in together share; of the rest PostgreSQL took three fifths, most of it for the exact scan of the agent's vectors. Every "
    "query is new, so none is remembered.",
    "million": "As above; the index is larger than PostgreSQL's own buffers, and is read from the system's.",
    "quality": "The shipped model knows little Spanish: words find more than meaning there, and together they find most.",
    "rivals": "Of a search the query's forward pass, which all three pay alike, then what only the service does: words beside meaning, the "
    "conversations around the best, and HTTP with authentication; the rivals run inside the asking process. Of a write the forward pass "
    "and the insert into HNSW, in batches here and one by one there.",
    "scale": "The cores: each worker encodes in one thread, so beyond as many workers as cores nothing is gained, and PostgreSQL's inserts "
    "into the HNSW index take their share.",
}
"""What bounds each part, found with a profiler; edit it when a change moves the bound."""

_HOW = """\
# Benchmarks

Measured by `make bench` (`python -m bench`) and `make rivals`, which start a stack of their own in a temporary folder, with the real model,
and remove it afterwards. Every contender of a part runs in the same run on the same machine, in turn, and the value is the median over the
rounds: trust the ratios more than the absolute numbers, which change from machine to machine.

`python -m bench drain` (or another part: `--help` names them) runs one part, `--json FILE` keeps every sample, `--texts FILE` takes texts
of your own (JSON lines with `text`). `python -m bench.page docs/benchmarks.md RUN.json...` writes this page from such files; of a part that
several hold, the last one counts. wrk makes the HTTP load where it is installed.
"""
_BASELINES = """\
## What is compared

- **Bare `encode()`**: sentence-transformers' own `model.encode()` in batches of 32, in the precision that the workers chose, while the
  stack is idle; one process with two threads, and two processes with one thread.
- **Encode and write**: a loop that encodes 32 texts and writes, in one transaction, what the service's end state holds: the episode
  with its pooled vector, the chunk, the finished queue row and the ledger row, into a second database made by the same migrations, with
  every table, index and foreign key. Triggers are off there because the loop writes directly what they would lead to.
- **Raw INSERT**: pgbench as the API's own role, under row security and with the triggers, one row a transaction.
"""


@dataclass(frozen=True)
class Run:
    """One run of the benchmark.

    Attributes:
        started_at: ISO 8601, UTC.
        command: As it was typed.
        seconds: How long it took.
        machine: From machine.describe.
        load_averages: One-minute load average before each part; above 1 the machine had other work.
        figures: By part.
    """

    started_at: str
    command: str
    seconds: float
    machine: Mapping[str, str]
    load_averages: Mapping[str, float]
    figures: Mapping[str, Sequence[Figure]]


def to_json(run: Run) -> dict[str, Any]:
    """Return the run with every sample and verdict, ready for a JSON writer."""
    return {
        "started_at": run.started_at,
        "command": run.command,
        "seconds": round(run.seconds, 1),
        "machine": dict(run.machine),
        "load_averages": dict(run.load_averages),
        "figures": {part: [{**asdict(figure), "met": figure.met} for figure in figures] for part, figures in run.figures.items()},
    }


def command_of(module: str) -> str:
    """Return the command as it was typed."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def finish(run: Run, json_file: Path | None) -> None:
    """Print a run's table, and write its JSON if a file is named."""
    Console().print(to_table(run.figures))
    if json_file is not None:
        json_file.write_text(json.dumps(to_json(run), indent=1) + "\n", encoding="utf-8")


def from_json(written: Mapping[str, Any]) -> Run:
    """Return a run as to_json() wrote it."""
    figures = {part: [_figure(figure) for figure in of_part] for part, of_part in written["figures"].items()}
    return Run(**{**written, "figures": figures})


def _figure(written: Mapping[str, Any]) -> Figure:
    values: dict[str, Any] = {name: value for name, value in written.items() if name != "met"}
    return Figure(**values | {"samples": tuple(values["samples"])})


def to_markdown(runs: Sequence[Run]) -> str:
    """Return the page for the documentation; of a part that several runs have, the last one's figures."""
    latest = {part: run for run in runs for part in run.figures}
    parts = [_HOW, _BASELINES]
    parts += [_section(part, latest[part]) for part in TITLES if part in latest]
    return "\n".join(parts)


def _section(part: str, run: Run) -> str:
    figures, machine = run.figures[part], run.machine
    versions = ", ".join(f"{name} {value}" for name, value in machine.items() if name not in ("processor", "memory", "system", "commit"))
    measured = (
        f"`{run.command}`, {run.started_at[:10]}, {run.seconds / 60:.0f} minutes, commit {machine['commit']}; one-minute load average "
        f"before it {run.load_averages[part]:.1f} (the part before it counts too; other work on the machine shows as rounds that differ).\n"
        f"{machine['processor']}, {machine['memory']}, {machine['system']}; {versions}."
    )
    rows = ["| what | value | target | rounds | note |", "| --- | ---: | ---: | --- | --- |"]
    rows += [f"| {' | '.join((f.name, _amount(f), _target(f), _rounds(f), f.note))} |" for f in figures]
    charts = "".join(f"\n{chart}\n" for chart in (_chart(figures, unit) for unit in ("ms", "episodes/s")) if chart)
    return f"## {TITLES[part]}\n\n" + "\n".join(rows) + f"\n{charts}\n**What limits it.** {LIMITS[part]}\n\n{measured}\n"


def _chart(figures: Sequence[Figure], unit: str) -> str:
    """Return a bar chart, which GitHub and most viewers of Markdown draw, of the figures in a unit; '' for fewer than three."""
    drawn = [figure for figure in figures if figure.unit == unit]
    if len(drawn) < 3:
        return ""
    legend = "\n".join(f"{number}. {figure.name}: {_amount(figure)}" for number, figure in enumerate(drawn, start=1))
    lines = [
        "```mermaid",
        "xychart-beta horizontal",
        f"    x-axis [{', '.join(str(number) for number in range(1, len(drawn) + 1))}]",
        f'    y-axis "{unit}" 0 --> {max(figure.value for figure in drawn) * 1.05:.4g}',
        f"    bar [{', '.join(f'{figure.value:.4g}' for figure in drawn)}]",
        "```",
    ]
    return "\n".join(lines) + f"\n\n{legend}"


def to_table(figures: Mapping[str, Sequence[Figure]]) -> Table:
    """Return the figures of all parts as a table for the terminal."""
    table = Table("what", "value", "target", "rounds", title="Benchmark")
    for column in table.columns[1:3]:
        column.justify = "right"
    for part, of_part in figures.items():
        for figure in of_part:
            style = {True: "green", False: "red", None: ""}[figure.met]
            table.add_row(f"{part}: {figure.name}", _amount(figure), _target(figure), _rounds(figure), style=style)
    return table


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _amount(figure: Figure) -> str:
    return _number(figure.value) if figure.unit == "ratio" else f"{_number(figure.value)} {figure.unit}"


def _rounds(figure: Figure) -> str:
    return ", ".join(map(_number, figure.samples))


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    sign = ">=" if figure.better == "larger" else "<"
    return f"{sign} {figure.target:g}, {'met' if figure.met else 'missed'}"
