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
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from app.config import Settings, load_settings
from app.db import Database
from app.embedding.encoder import Encoder, load_encoder
from app.embedding.migration import Finished, ModelMigration, Progress, Tell
from app.embedding.model_roles import require_sound
from app.embedding.models import EmbeddingModel
from app.embedding.weights import find_weights
from app.errors import ConfigurationError
from app.observability.logs import configure_logging
from app.search.encoding import LOOK_SECONDS
from app.serialization import to_json

_INTERRUPTED = 130
"""What a shell reports of a command that Ctrl-C ended."""

_STEPS = {"enqueue": "agents enqueued", "embed": "agents complete", "copy": "copies on episodes renewed", "drop": "rows deleted"}


def _settings() -> Settings:
    settings = load_settings()
    # What a command did it prints itself; its log has only what went wrong.
    configure_logging(settings.model_copy(update={"log_level": "WARNING"}), "command")
    return settings


@contextmanager
def _migration(tell: Tell = lambda _: None) -> Iterator[ModelMigration]:
    settings = _settings()
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
    with ProgressBar(*columns, console=Console(stderr=True)) as bar:
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
        raise SystemExit(_INTERRUPTED) from None


def _refuse_pinned(pinned: str, encoder: Encoder) -> None:
    """Refuse a change that processes with this one's EMBEDDING_MODEL could not follow.

    Raises:
        ConfigurationError: EMBEDDING_MODEL is set, and is not the encoder's model.
    """
    if pinned and find_weights(pinned).fingerprint != encoder.fingerprint:
        raise ConfigurationError(f"EMBEDDING_MODEL pins {pinned}: unset it for every process, then migrate to {encoder.name}")


@click.group()
def embedding() -> None:
    """The embedding model: status, migrate to another, roll back."""


@embedding.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show the models that the database knows, and what is stored under each."""
    with _migration() as migration:
        models = migration.status()
    if as_json:
        click.echo(to_json([asdict(model) for model in models]).decode())
        return
    table = Table("id", "role", "model", "dimensions", "weights", "episodes", "vectors", "pending", "dead", "agents changed over", box=None)
    for model in models:
        pending = model.work.get("pending", 0) + model.work.get("processing", 0)
        numbers = (model.episodes, model.chunks, pending, model.work.get("dead", 0), model.complete_agents)
        identity = (str(model.model_id), model.role, model.version, str(model.dimensions), model.fingerprint[:12])
        table.add_row(*identity, *(f"{number:,}" for number in numbers))
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


@embedding.command()
@click.option(
    "--model", "source", required=True, help="Folder or name of a locally cached sentence-transformers model; '' is the shipped one."
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=None, help="Most episodes enqueued in a second.")
@click.option("--accept-dead", is_flag=True, help="Change over although some episodes cannot be embedded; they stay dead.")
@click.option(
    "--keep-active", is_flag=True, help="Stop before the new model becomes the active one; agents that are complete use it already."
)
def migrate(source: str, rate: float | None, accept_dead: bool, keep_active: bool) -> None:
    """Embed everything with another model while the old vectors serve, then make it the active one. Run it again after an interruption."""
    if rate is not None and not math.isfinite(rate):
        raise click.BadParameter("must be a number", param_hint="--rate")
    # Workers run elsewhere: what they are told must not depend on where this command was typed.
    source = str(Path(source).absolute()) if source and Path(source).is_dir() else source
    pinned = _settings().embedding_model
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
            click.echo(f"every agent is complete under {model.name}; run this again without --keep-active to make it the active model")
            return
        if is_new:
            migration.activate(model)
        with _interruptible(f"{model.name} is the active model: run this again for what is left"):
            finished = migration.finish(model)
    if not is_new:
        click.echo(f"{model.name} is the active model; {_account(finished)}")
        return
    # Every process has looked by then, so whatever is done next finds nobody on the old model.
    time.sleep(2 * LOOK_SECONDS)
    click.echo(
        f"{model.name} ({model.dimensions} dimensions) is the active model. The old vectors are kept:"
        " `embedding migrate` goes back to them, `embedding drop` deletes them."
    )


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


@embedding.command()
def rollback() -> None:
    """Give up the migration under way and delete what it made, unless it was a way back; the active model serves on."""
    with _bar() as tell, _migration(tell) as migration, migration.alone():
        target = migration.rollback()
    kept = (
        f"its vectors of before are kept; `embedding drop {target.model_id}` deletes them"
        if target.was_active
        else "its vectors are deleted"
    )
    click.echo(f"the migration to {target.name} is given up; {kept}")


@embedding.command()
@click.argument("model_id", type=int)
def drop(model_id: int) -> None:
    """Delete the vectors of a model that is not in use; `embedding status` gives its id."""
    with _bar() as tell, _migration(tell) as migration, migration.alone():
        dropped = migration.drop(model_id)
    click.echo(f"{dropped:,} rows deleted")
