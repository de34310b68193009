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

from app.config import load_settings
from app.db import Database
from app.embedding.encoder import load_encoder
from app.embedding.migration import ModelMigration, Progress, Tell
from app.errors import ConfigurationError
from app.observability.logs import configure_logging
from app.search.encoding import LOOK_SECONDS
from app.serialization import to_json

_STEPS = {"enqueue": "agents enqueued", "embed": "agents complete", "copy": "copies on episodes renewed", "drop": "rows deleted"}


@contextmanager
def _migration(tell: Tell = lambda _: None) -> Iterator[ModelMigration]:
    settings = load_settings()
    # What a command did it prints itself; its log has only what went wrong.
    configure_logging(settings.model_copy(update={"log_level": "WARNING"}), "command")
    owner = Database(settings, "nexus_superuser", "nexus model migration", statement_timeout_seconds=0)
    worker = Database(settings, "nexus_worker", "nexus model migration", statement_timeout_seconds=0)
    try:
        yield ModelMigration(owner, worker, tell)
    finally:
        owner.close()
        worker.close()


@contextmanager
def _bar() -> Iterator[Tell]:
    """Draw progress on stderr: a bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"))
    with ProgressBar(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        tasks: dict[str, Any] = {}

        def tell(progress: Progress) -> None:
            if progress.step not in tasks:
                tasks[progress.step] = bar.add_task(_STEPS[progress.step], total=None, detail="")
            bar.update(tasks[progress.step], completed=progress.done, total=progress.total or None, detail=progress.detail)

        yield tell


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
    encoder = load_encoder(source, "fp32", 1)
    with _bar() as tell, _migration(tell) as migration, migration.alone():
        target = migration.begin(encoder, source)
        dead = migration.embed(target, rate, accepts_dead=accept_dead)
        if dead and not accept_dead:
            raise ConfigurationError(
                f"{dead} episodes are dead under {target.name}: `python -m app queue dead` says why; replay them and run this again,"
                " or accept them with --accept-dead"
            )
        if keep_active:
            click.echo(f"every agent is complete under {target.name}; run this again without --keep-active to make it the active model")
            return
        migration.activate(target)
        migration.copy(target)
    # Every process has looked by then, so whatever is done next finds nobody on the old model.
    time.sleep(2 * LOOK_SECONDS)
    click.echo(
        f"{target.name} ({target.dimensions} dimensions) is the active model. The old vectors are kept:"
        " `embedding migrate` goes back to them, `embedding drop` deletes them."
    )


@embedding.command()
def rollback() -> None:
    """Give up the migration under way and delete what it made; the active model serves on."""
    with _bar() as tell, _migration(tell) as migration, migration.alone():
        name = migration.rollback()
    click.echo(f"the migration to {name} is given up; its vectors are deleted")


@embedding.command()
@click.argument("model_id", type=int)
def drop(model_id: int) -> None:
    """Delete the vectors of a model that is not in use; `embedding status` gives its id."""
    with _bar() as tell, _migration(tell) as migration, migration.alone():
        dropped = migration.drop(model_id)
    click.echo(f"{dropped:,} rows deleted")
