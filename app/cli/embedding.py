"""`embedding`: which model the vectors are of, and how to change it while everything goes on."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from app.cli.command import Group
from app.cli.console import bars, json_option, make_table, numeric, print_json, print_table
from app.cli.interrupts import INTERRUPTED
from app.cli.services import quiet_settings
from app.db import Database
from app.embedding.encoder import Encoder, load_encoder
from app.embedding.migration import Finished, ModelMigration, Progress, Tell
from app.embedding.model_roles import require_sound
from app.embedding.models import EmbeddingModel
from app.embedding.weights import find_weights
from app.errors import ConfigurationError
from app.search.encoding import LOOK_SECONDS

_STEPS = {"enqueue": "agents enqueued", "embed": "agents complete", "copy": "copies on episodes renewed", "drop": "rows deleted"}


@contextmanager
def _migration(tell: Tell = lambda _: None) -> Iterator[ModelMigration]:
    settings = quiet_settings()
    owner = Database(settings, "nexus_superuser", "nexus model migration", statement_timeout_seconds=0)
    worker = Database(settings, "nexus_worker", "nexus model migration", statement_timeout_seconds=0)
    try:
        yield ModelMigration(owner, worker, tell)
    finally:
        owner.close()
        worker.close()


@contextmanager
def _bar() -> Iterator[Tell]:
    """Tell progress on stderr: a bar on a terminal; elsewhere one line for each reason for which rows wait."""
    if not sys.stderr.isatty():
        yield _reasons()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"))
    with bars(*columns, transient=False) as bar:
        tasks: dict[str, Any] = {}

        def tell(progress: Progress) -> None:
            if progress.step not in tasks:
                tasks[progress.step] = bar.add_task(_STEPS[progress.step], total=None, detail="")
            detail = "; ".join((progress.detail, *(f"{rows:,} for {reason}" for reason, rows in progress.waiting_for.items())))
            bar.update(tasks[progress.step], completed=progress.done, total=progress.total or None, detail=detail)

        yield tell


def _reasons() -> Tell:
    told: set[str] = set()

    def tell(progress: Progress) -> None:
        for reason, rows in progress.waiting_for.items():
            if reason not in told:
                told.add(reason)
                click.echo(f"{rows:,} rows wait for another try: {reason}; the workers' logs say more", err=True)

    return tell


@contextmanager
def _interruptible(standing: str) -> Iterator[None]:
    """End the command with a line that says how things stand when the block is interrupted by Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted: {standing}", err=True)
        raise SystemExit(INTERRUPTED) from None


def _refuse_pinned(pinned: str, encoder: Encoder) -> None:
    """Refuse a change that processes with this one's EMBEDDING_MODEL could not follow.

    Raises:
        ConfigurationError: EMBEDDING_MODEL is set, and is not the encoder's model.
    """
    if pinned and find_weights(pinned).fingerprint != encoder.fingerprint:
        raise ConfigurationError(f"EMBEDDING_MODEL pins {pinned}: unset it for every process, then migrate to {encoder.name}")


@click.group(cls=Group)
def embedding() -> None:
    """The embedding model: status, migrate to another, roll back."""


@embedding.command(examples=["embedding status", "embedding status --json"])
@json_option
def status(as_json: bool) -> None:
    """Show the models that the database knows, and what is stored under each."""
    with _migration() as migration:
        models = migration.status()
    if as_json:
        print_json([asdict(model) for model in models])
        return
    counts = map(numeric, ("episodes", "vectors", "pending", "dead", "agents changed over"))
    table = make_table(numeric("id"), "role", "model", numeric("dimensions"), "weights", *counts)
    for model in models:
        pending = model.work.get("pending", 0) + model.work.get("processing", 0)
        numbers = (model.episodes, model.chunks, pending, model.work.get("dead", 0), model.complete_agents)
        identity = (str(model.model_id), model.role, model.version, str(model.dimensions), model.fingerprint[:12])
        table.add_row(*identity, *(f"{number:,}" for number in numbers))
    print_table(table)


@embedding.command(
    exits={INTERRUPTED: "Interrupted by Ctrl-C; a line says how things stand. Run it again to go on."},
    examples=["embedding migrate --model /models/all-mpnet-base-v2", "embedding migrate --model '' --rate 50"],
)
@click.option(
    "--model", "source", required=True, help="Folder or name of a locally cached sentence-transformers model; '' is the shipped one."
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=None, help="Most episodes enqueued in a second.")
@click.option("--accept-dead", is_flag=True, help="Change over although some episodes cannot be embedded; they stay dead.")
@click.option(
    "--keep-active", is_flag=True, help="Stop before the new model becomes the active one; agents that are complete use it already."
)
@json_option
def migrate(*, source: str, rate: float | None, accept_dead: bool, keep_active: bool, as_json: bool) -> None:
    """Embed everything with another model while the old vectors serve, then make it the active one.

    Run it again after an interruption: it goes on where it stood.
    """
    if rate is not None and not math.isfinite(rate):
        raise click.BadParameter("must be a number", param_hint="--rate")
    # Workers run elsewhere: what they are told must not depend on where this command was typed.
    source = str(Path(source).absolute()) if source and Path(source).is_dir() else source
    pinned = quiet_settings().embedding_model
    encoder = load_encoder(source, "fp32", 1)
    _refuse_pinned(pinned, encoder)
    require_sound(encoder)
    with _bar() as tell, _migration(tell) as migration, migration.alone():
        with _interruptible("the target stays set: run this again to go on, or `python -m app embedding rollback` to give the change up"):
            model = migration.begin(encoder, source)
            is_new = not model.is_active
            if is_new:
                _embed(migration, model, rate, accept_dead=accept_dead)
        if is_new and keep_active:
            said = f"every agent is complete under {model.name}; run this again without --keep-active to make it the active model"
            _print_outcome(model, None, said, is_active=False, as_json=as_json)
            return
        if is_new:
            migration.activate(model)
        with _interruptible(f"{model.name} is the active model: run this again for what is left"):
            finished = migration.finish(model)
    if not is_new:
        _print_outcome(model, finished, f"{model.name} is the active model; {_account(finished)}", is_active=True, as_json=as_json)
        return
    # Every process has looked by then, so whatever is done next finds nobody on the old model.
    time.sleep(2 * LOOK_SECONDS)
    said = (
        f"{model.name} ({model.dimensions} dimensions) is the active model. The old vectors are kept:"
        " `embedding migrate` goes back to them, `embedding drop` deletes them."
    )
    _print_outcome(model, finished, said, is_active=True, as_json=as_json)


def _print_outcome(model: EmbeddingModel, finished: Finished | None, said: str, *, is_active: bool, as_json: bool) -> None:
    if not as_json:
        click.echo(said)
        return
    left = {"enqueued": finished.enqueued, "copies": finished.copies} if finished is not None else None
    print_json({"model_id": model.model_id, "model": model.name, "dimensions": model.dimensions, "is_active": is_active, "finished": left})


def _embed(migration: ModelMigration, target: EmbeddingModel, rate: float | None, *, accept_dead: bool) -> None:
    dead = migration.embed(target, rate, accepts_dead=accept_dead)
    if dead and not accept_dead:
        raise ConfigurationError(
            f"{dead} episodes are dead under {target.name}: `python -m app queue dead` says why; replay them and run this again,"
            " or accept them with --accept-dead"
        )


def _account(finished: Finished) -> str:
    if not finished.enqueued and not finished.copies:
        return "nothing was left to do"
    return f"{finished.copies:,} copies were renewed and {finished.enqueued:,} rows enqueued"


@embedding.command(examples=["embedding rollback"])
@json_option
def rollback(as_json: bool) -> None:
    """Give up the migration under way and delete what it made, unless it was a way back; the active model serves on."""
    with _bar() as tell, _migration(tell) as migration, migration.alone():
        target = migration.rollback()
    if as_json:
        print_json({"model_id": target.model_id, "model": target.name, "vectors_are_kept": target.was_active})
        return
    kept = (
        f"its vectors of before are kept; `embedding drop {target.model_id}` deletes them"
        if target.was_active
        else "its vectors are deleted"
    )
    click.echo(f"the migration to {target.name} is given up; {kept}")


@embedding.command(examples=["embedding drop 1"])
@click.argument("model_id", type=int, help="Its id, as `embedding status` gives it.")
@json_option
def drop(model_id: int, as_json: bool) -> None:
    """Delete the vectors of a model that is not in use."""
    with _bar() as tell, _migration(tell) as migration, migration.alone():
        dropped = migration.drop(model_id)
    if as_json:
        print_json({"model_id": model_id, "rows_deleted": dropped})
        return
    click.echo(f"{dropped:,} rows deleted")
