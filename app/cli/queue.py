"""`queue`: the state of the queue, its dead rows and their replay, and how many workers it needs."""

import math
from datetime import datetime
from uuid import UUID

import click

from app.cli.command import Group
from app.cli.console import json_option, make_table, numeric, print_json, print_table, progress_bar
from app.cli.services import open_services
from app.queue.dead import DeadCauses, DeadPage, DeadSelection
from app.queue.status import QueueStatus


class _Cause(click.ParamType[str]):
    """A cause as the queue wrote it: text, and not empty."""

    name = "cause"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value.strip() or not value.isprintable():
            self.fail("must be a cause as `queue dead` spells it", param, ctx)
        return value


@click.group(cls=Group)
def queue() -> None:
    """The embedding queue: status, dead rows, replay, advice on workers."""


@queue.command(examples=["queue status"])
@json_option
def status(as_json: bool) -> None:
    """Show rows by state and lane, who works on them, and how many workers it needs."""
    found = open_services().queue_status.status()
    if as_json:
        print_json(found)
        return
    _print_status(found)


@queue.command(examples=["queue dead", "queue dead --cause 'worker_lost: WorkerLostError' --limit 20"])
@click.option("--cause", type=_Cause(), default=None, help="List the rows of this cause instead.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=None, help="Rows to list, with --cause; 100 if not given.")
@click.option("--after", type=click.UUID, default=None, help="List the rows after this target, with --cause.")
@json_option
def dead(cause: str | None, limit: int | None, after: UUID | None, as_json: bool) -> None:
    """Show the dead rows by cause, or list those of one cause."""
    if cause is None and (limit, after) != (None, None):
        raise click.UsageError("--limit and --after belong to a list of rows: give --cause CAUSE with them")
    service = open_services().dead_rows
    if cause is None:
        causes = service.causes()
        print_json(causes) if as_json else _print_causes(causes)
    else:
        page = service.rows(cause, after, limit or 100)
        print_json(page) if as_json else _print_rows(page, cause)


@queue.command(
    exits={1: "The question was answered with no, or another error."},
    examples=["queue replay --cause 'worker_lost: WorkerLostError'", "queue replay --id ID --id ID", "queue replay --all --yes"],
)
@click.option("--cause", type=_Cause(), default=None, help="Replay the rows of this cause, as `queue dead` spells it.")
@click.option("--id", "ids", type=click.UUID, multiple=True, help="Replay the rows of this target; may be given more than once.")
@click.option("--all", "everything", is_flag=True, help="Replay every dead row.")
@click.option("--yes", is_flag=True, help="Do not ask before replaying all.")
@json_option
def replay(cause: str | None, ids: tuple[UUID, ...], everything: bool, yes: bool, as_json: bool) -> None:
    """Give dead rows a new set of attempts, 1,000 rows a transaction."""
    if sum((cause is not None, bool(ids), everything)) != 1:
        raise click.UsageError("say which rows to replay: exactly one of --cause CAUSE, --id ID (may be repeated) and --all")
    service = open_services().dead_rows
    selection = DeadSelection(ids=ids or None, cause=cause)
    expected = service.count(selection)
    if everything and expected and not yes:
        click.confirm(f"replay all {expected:,} dead rows?", abort=True, err=True)
    replayed = 0
    with progress_bar("rows", expected) as bar:
        for rows in service.replay_in_steps(selection, by=None):
            replayed += rows
            bar.update(replayed, max(expected, replayed))
    remaining = service.count(selection)
    if as_json:
        print_json({"replayed": replayed, "remaining": remaining})
        return
    click.echo(_outcome(replayed, remaining))


@queue.command(examples=["queue advise", "queue advise --minutes 1"])
@click.option("--minutes", type=click.FloatRange(0.01, 1e6), default=None, help="In how many; AUTOSCALE_DRAIN_MINUTES if not given.")
@json_option
def advise(minutes: float | None, as_json: bool) -> None:
    """Say how many workers would embed what is due in some minutes."""
    if minutes is not None and not math.isfinite(minutes):
        raise click.BadParameter("must be a number", param_hint="--minutes")
    advice = open_services().queue_status.advice(minutes)
    if as_json:
        print_json(advice)
        return
    click.echo(f"{advice.workers_advised} advised, {advice.workers_at_work} at work: {advice.reason}")
    if advice.due and advice.minutes_to_drain is not None:
        click.echo(f"those at work need {_duration(advice.minutes_to_drain * 60)}")


def _outcome(replayed: int, remaining: int) -> str:
    if not replayed and not remaining:
        return "no dead rows to replay"
    rows = "1 row" if replayed == 1 else f"{replayed:,} rows"
    if not remaining:
        return f"replayed {rows}; none of those asked for is dead now"
    return f"replayed {rows}; {remaining:,} dead still: they died again, or were being changed just then (`queue dead` shows why)"


def _print_status(found: QueueStatus) -> None:
    click.echo(
        f"{found.pending:,} pending ({found.waiting:,} of them wait for another attempt), {found.processing:,} processing, "
        f"{found.done:,} done, {found.dead:,} dead; oldest pending {_duration(found.oldest_pending_age_seconds)}"
    )
    lanes = make_table("lane", *map(numeric, ("pending", "waiting", "processing", "oldest")))
    for lane in found.lanes:
        oldest = _duration(lane.oldest_pending_age_seconds) if lane.pending else "-"
        lanes.add_row(lane.lane, f"{lane.pending:,}", f"{lane.waiting:,}", f"{lane.processing:,}", oldest)
    print_table(lanes)
    rates = (numeric("episodes/s"), numeric("characters/s"))
    processes = make_table("process", numeric("slots"), "model", *rates, numeric("heard from"), "problem")
    for worker in found.workers:
        measured = (_rate(worker.items_per_second, ".1f"), _rate(worker.chars_per_second, ",.0f"))
        model = " ".join(filter(None, (worker.model, worker.precision)))
        heard = f"{worker.seconds_since_heartbeat:.0f} s ago"
        processes.add_row(worker.worker_id, str(worker.slots), model, *measured, heard, worker.problem or "")
    for dispatcher in found.dispatchers:
        processes.add_row(dispatcher.worker_id, "-", "", "-", "-", f"{dispatcher.seconds_since_heartbeat:.0f} s ago", "")
    print_table(processes)
    if not found.workers or not found.dispatchers:
        click.echo("no worker or no dispatcher was heard from lately; new episodes get no vectors", err=True)
    click.echo(f"advice: {found.advice.reason}")


def _print_causes(found: DeadCauses) -> None:
    if not found.total:
        click.echo("no dead rows")
        return
    table = make_table(numeric("rows"), numeric("agents"), "first", "last", "example", "cause")
    for cause in found.causes:
        example = str(cause.examples[0]) if cause.examples else "-"
        table.add_row(f"{cause.rows:,}", f"{cause.agents:,}", _time(cause.first_dead_at), _time(cause.last_dead_at), example, cause.cause)
    print_table(table)
    click.echo(f"{found.total:,} dead; once a cause is gone: `queue replay --cause CAUSE`")


def _print_rows(page: DeadPage, cause: str) -> None:
    if not page.items:
        click.echo(f"no dead rows of cause {cause!r}")
        return
    table = make_table("target", "kind", numeric("model"), "agent", numeric("characters"), numeric("attempts"), "died")
    for row in page.items:
        numbers = (f"{row.input_chars:,}", str(row.attempts))
        table.add_row(str(row.target_id), row.target_kind, str(row.model_id), row.agent_id, *numbers, _time(row.dead_at))
    print_table(table)
    if page.next_cursor is not None:
        click.echo(f"more: --after {page.next_cursor}")


def _rate(rate: float | None, form: str) -> str:
    return "-" if rate is None else format(rate, form)


def _time(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"


def _duration(seconds: float) -> str:
    """Return a duration for people: 0.4 s, 12 s, 7 min, 3.2 h."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
