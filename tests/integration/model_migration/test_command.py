"""The command `embedding migrate`: what it refuses, what it says while it waits, and how it ends."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.bootstrap import Services
from app.cli import embedding as command
from app.config import Settings
from app.embedding.encoder import EncodingFault
from app.embedding.migration import ModelMigration
from app.embedding.models import EmbeddingModel
from app.embedding.weights import DEFAULT_SHA256, find_weights
from app.errors import ConfigurationError
from tests.factories.encoder import FakeEncoder
from tests.factories.model_change import OTHER, Migrate, Working, embedded, store
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

Run = Callable[..., Result]


@pytest.fixture
def migrate(database_settings: Settings, encoders: dict[str, FakeEncoder], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `embedding migrate --model /models/other`: migrate(encoder, **settings)."""

    def call(*arguments: str, fingerprint: str = OTHER, **settings: Any) -> Result:
        monkeypatch.setattr(command, "quiet_settings", lambda: database_settings.model_copy(update=settings))
        monkeypatch.setattr(command, "load_encoder", lambda *_: encoders[fingerprint])
        monkeypatch.setattr(command, "LOOK_SECONDS", 0.0)
        return CliRunner().invoke(command.embedding, ["migrate", "--model", "/models/other", *arguments])

    return call


def test_change_is_made_once_and_repeated_it_says_that_nothing_was_left(services: Services, workshop: Workshop, migrate: Run) -> None:
    store(services, "alice", "one", "two")
    workshop.drain()
    with Working(workshop):
        assert "fake (64 dimensions) is the active model." in migrate().stdout
    again = migrate()
    assert again.exit_code == 0
    assert "fake is the active model; nothing was left to do\n" in again.stdout
    assert again.stderr == ""


def test_run_after_one_that_was_killed_at_the_end_says_what_it_did(
    services: Services, workshop: Workshop, migrate: Run, migration: Migrate, encoders: dict[str, FakeEncoder]
) -> None:
    store(services, "alice", "one", "two")
    workshop.drain()
    killed = migration()
    target = embedded(killed, encoders[OTHER], workshop)
    killed.activate(target)
    again = migrate()
    assert again.exit_code == 0
    assert "fake is the active model; 2 copies were renewed and 0 rows enqueued\n" in again.stdout


def test_change_is_refused_while_the_settings_pin_another_model(migrate: Run, sql: Sql, tmp_path: Path) -> None:
    pinned = str(shutil.copytree(find_weights("").folder, tmp_path / "pinned", copy_function=os.symlink))
    refused = migrate(embedding_model=pinned)
    assert isinstance(refused.exception, ConfigurationError)
    assert refused.exception.message == f"EMBEDDING_MODEL pins {pinned}: unset it for every process, then migrate to fake"
    assert sql.one("SELECT count(*) FROM memory_system.embedding_models") == 1
    assert "is the active model" in migrate(embedding_model=pinned, fingerprint=DEFAULT_SHA256).stdout


@pytest.mark.parametrize("texts_at_once", [1, 2])
def test_model_that_cannot_encode_is_refused_before_anything_changes(
    texts_at_once: int, migrate: Run, encoders: dict[str, FakeEncoder], sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are not numbers may show only where a shorter text is padded beside a longer one."""
    encode = encoders[OTHER].encode_documents

    def break_at(texts: Sequence[str]) -> Any:
        if len(texts) >= texts_at_once:
            raise EncodingFault("broken", reason="not a finite vector with a direction")
        return encode(texts)

    monkeypatch.setattr(encoders[OTHER], "encode_documents", break_at)
    refused = migrate()
    assert isinstance(refused.exception, ConfigurationError)
    assert "cannot encode a plain sentence (encoding_fault: not a finite vector" in refused.exception.message
    assert sql("SELECT model_id::int, is_active, is_target FROM memory_system.embedding_models") == [(1, True, False)]


def test_reason_for_which_rows_wait_is_told_once(
    services: Services,
    workshop: Workshop,
    migrate: Run,
    encoders: dict[str, FakeEncoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store(services, "alice", "one", "two")
    workshop.drain()
    installed_at = time.monotonic() + 2

    def missing(model: EmbeddingModel) -> FakeEncoder:
        if time.monotonic() < installed_at:
            raise ConfigurationError("not on this machine")
        return encoders[model.fingerprint]

    monkeypatch.setattr(workshop.embedding, "_load", missing)
    for module in ("worker_models", "service"):
        monkeypatch.setattr(f"app.embedding.{module}.RETRY_SECONDS", 0.1)
    monkeypatch.setattr("app.embedding.migration._LOOK_SECONDS", 0.0)
    with Working(workshop):
        done = migrate()
    assert done.exit_code == 0
    assert done.stderr == "2 rows wait for another try: model_missing: configuration_error; the workers' logs say more\n"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("embed", "the target stays set: run this again to go on, or `python -m app embedding rollback`"),
        ("finish", "is the active model: run this again"),
    ],
)
def test_interruption_ends_with_a_line_that_says_how_things_stand(
    step: str, said: str, services: Services, migrate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelMigration, step, interrupt)
    ended = migrate()
    assert ended.exit_code == 130
    assert said in ended.stderr
    assert "Aborted" not in ended.output
