"""`reconcile`: the stores compared and repaired on demand, and what earlier runs found."""

import sys
from typing import Any, get_args

import click

from app.bootstrap import build_reconciliation_service
from app.cli.command import Group
from app.cli.console import json_option, make_table, numeric, print_json, print_table, progress_bar
from app.cli.services import quiet_settings
from app.reconcile.service import Kind, ReconciliationService, Report

_FOUND = 3
"""Exit status of a dry run that found something."""


@click.group(cls=Group)
def reconcile() -> None:
    """Compare the stores and repair what differs; earlier runs."""


def _service() -> ReconciliationService:
    return build_reconciliation_service(quiet_settings())


@reconcile.command(
    exits={_FOUND: "With --dry-run: something was found."},
    examples=["reconcile run", "reconcile run --dry-run --deep", "reconcile run --kind working --json"],
)
@click.option("--kind", type=click.Choice([*get_args(Kind), "all"]), default="all", show_default=True, help="Which stores.")
@click.option("--dry-run", is_flag=True, help="Find, and repair nothing.")
@click.option("--deep", is_flag=True, help="Read every vector and working memory too, to find what no trigger saw.")
@json_option
def run(kind: str, dry_run: bool, deep: bool, as_json: bool) -> None:
    """Compare PostgreSQL with Redis (working) and memories with their vectors (vectors), and repair what differs."""
    service = _service()
    reports: list[Report] = []
    for one in get_args(Kind):
        if kind in (one, "all"):
            with progress_bar(f"{one}: ranges") as bar:
                reports.append(service.run(one, dry_run=dry_run, deep=deep, tell=bar.update))
    if as_json:
        print_json(reports)
    else:
        _print_reports(reports)
    if dry_run and any(report.found for report in reports):
        sys.exit(_FOUND)


def _print_reports(reports: list[Report]) -> None:
    table = make_table("kind", numeric("ranges"), numeric("different"), "found", "repaired")
    for report in reports:
        table.add_row(report.kind, str(report.ranges_compared), str(report.ranges_different), _words(report.found), _words(report.repaired))
    print_table(table)
    for report in reports:
        for kind, name in report.named:
            click.echo(f"{kind}: {name}", err=True)


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing"


@reconcile.command(examples=["reconcile runs --limit 5"])
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@json_option
def runs(limit: int, as_json: bool) -> None:
    """List the latest runs, also those that went by themselves, the latest first."""
    found = _service().runs(limit)
    if as_json:
        print_json(found)
        return
    table = make_table("started", "kind", numeric("took"), numeric("ranges"), numeric("different"), "found", "repaired", "error")
    for one in found:
        took: Any = "runs or died" if one.finished_at is None else f"{(one.finished_at - one.started_at).total_seconds():.1f} s"
        kind = f"{one.kind} (dry)" if one.dry_run else one.kind
        table.add_row(
            f"{one.started_at:%Y-%m-%d %H:%M:%S}Z",
            kind,
            took,
            str(one.ranges_compared),
            str(one.ranges_different),
            _words(one.found),
            _words(one.repaired),
            one.error or "",
        )
    print_table(table)
