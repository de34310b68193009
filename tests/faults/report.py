"""The report of a run: JSON and a table, and the way of that table into docs/reliability.md: `python -m tests.faults.report RUN.json`."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from tests.faults.case import Outcome

_ROOT = Path(__file__).resolve().parents[2]
_DOCUMENT = _ROOT / "docs" / "reliability.md"
_HEADER = "| case | broker | episodes | lost | twice | stale | stuck | recovery (s) | all done (s) | attempts of done rows |"
_RULE = "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
_SOAK_NAMES = (
    "minutes",
    "episodes",
    "edits",
    "deletes",
    "drift",
    "lost",
    "embedded_twice",
    "stale_served",
    "stuck",
    "dead",
    "drain_seconds",
)


def write_run(outcomes: Sequence[Outcome], folder: Path, profile: str, settings: dict[str, Any]) -> Path:
    """Write a run as faults.json and faults.md and return the folder.

    Args:
        outcomes: Every case that ran.
        folder: Made if it is not there.
        profile: short or full.
        settings: The times that the processes ran with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cases = [asdict(outcome) for outcome in outcomes]
    run = {"measured": measured(), "profile": profile, "settings": settings, "cases": cases}
    (folder / "faults.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    (folder / "faults.md").write_text(f"{run['measured']}\n\n{table(cases)}\n", encoding="utf-8")
    return folder


def measured() -> str:
    """Return when and on what a run was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=_ROOT, check=False, capture_output=True, text=True
    ).stdout.strip()
    memory = psutil.virtual_memory().total / 2**30
    when = datetime.now(UTC).date().isoformat()
    system = f"{platform.system()} {platform.release()}"
    return f"Measured {when}: {os.cpu_count()} cores, {memory:.0f} GiB, {system}, commit {commit or 'unknown'}."


def table(cases: Iterable[dict[str, Any]]) -> str:
    """Return the cases as a markdown table, in the order they ran."""
    return "\n".join([_HEADER, _RULE, *(_row(case) for case in cases)])


def _row(case: dict[str, Any]) -> str:
    attempts = ", ".join(f"{rows} by {number}" for number, rows in sorted(case["attempts"].items(), key=lambda item: int(item[0])))
    numbers = [case[name] for name in ("episodes", "lost", "embedded_twice", "stale_served", "stuck")]
    seconds = ["-" if case[name] is None else f"{case[name]:.1f}" for name in ("recovery_seconds", "drain_seconds")]
    name = readable(case["case"]) + ("" if case["passed"] else " **FAILED**")
    return f"| {name} | {case['broker']} | " + " | ".join([*map(str, numbers), *seconds, attempts or "-"]) + " |"


def readable(name: str) -> str:
    """Return a test's name as words."""
    return name.removeprefix("test_").replace("_", " ")


def soak_table(soak: dict[str, Any]) -> str:
    """Return the soak's figures as a markdown table."""
    lines = ["| figure | value |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {soak[name]} |" for name in _SOAK_NAMES]
    lines.append(f"| invariants and steps of the record that were broken | {len(soak['violations'])} |")
    lines += [f"| faults: {readable(kind)} | {count} |" for kind, count in sorted(soak["faults"].items())]
    for name, (first, last) in sorted(soak["memory_mib"].items()):
        lines.append(f"| memory of {name}, first third and last third (MiB) | {first:.0f}, {last:.0f} |")
    for name in ("connections", "dead_tuples"):
        first, last = soak[name]
        lines.append(f"| {name.replace('_', ' ')}, first third and last third (median) | {first:.0f}, {last:.0f} |")
    return "\n".join(lines)


def mutants() -> str:
    """Return a markdown table of every mutant in the tests: what was taken out or put in, and where it is caught."""
    lines = ["| mutant | caught in |", "| --- | --- |"]
    for path in sorted((_ROOT / "tests").rglob("test_*.py")):
        names = re.findall(r"^def (test_mutant_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        lines += [f"| {readable(name).removeprefix('mutant ')} | `{path.relative_to(_ROOT).as_posix()}` |" for name in sorted(names)]
    return "\n".join(lines)


def publish(document: str, mark: str, text: str) -> str:
    """Return the document with what stands between a mark's two comments replaced."""
    pattern = re.compile(rf"(<!-- {mark}:begin -->\n).*?(<!-- {mark}:end -->)", re.DOTALL)
    assert pattern.search(document), f"the document has no place for {mark}"
    return pattern.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", document)


def main(paths: Sequence[str]) -> None:
    """Put each report, of the suite or of the soak, into its place in docs/reliability.md, and the names of the mutants."""
    document = publish(_DOCUMENT.read_text(encoding="utf-8"), "mutants", mutants())
    for path in paths:
        run = json.loads(Path(path).read_text(encoding="utf-8"))
        mark, text = ("faults", table(run["cases"])) if "cases" in run else ("soak", soak_table(run))
        document = publish(document, mark, f"{run['measured']}\n\n{text}")
    _DOCUMENT.write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
