"""Which model a folder holds: every file that shapes a vector counts, and none other."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from app.embedding.models import EmbeddingModel
from app.embedding.weights import DEFAULT_SHA256, WEIGHTS_FILE, find_source, find_weights, fingerprint
from app.errors import ConfigurationError

MODULES = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "3_Normalize"}]
FILES = {
    "modules.json": json.dumps(MODULES),
    "config.json": "{}",
    "config_sentence_transformers.json": "{}",
    "tokenizer.json": '{"vocab": {"a": 1}}',
    "vocab.txt": "a",
    "spiece.model": "pieces",
    "model.safetensors": "weights",
    "1_Pooling/config.json": '{"pooling_mode_mean_tokens": true}',
    "2_Dense/config.json": "{}",
    "2_Dense/pytorch_model.bin": "weights",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    for name, content in FILES.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return made


def test_fingerprint_is_the_digest_of_the_sorted_lines_of_the_files(folder: Path) -> None:
    lines = sorted(f"{hashlib.sha256(content.encode()).hexdigest()}  {name}\n" for name, content in FILES.items())
    assert fingerprint(folder) == hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"modules.json"}))
def test_change_of_any_file_that_shapes_a_vector_is_another_model(name: str, folder: Path) -> None:
    before = fingerprint(folder)
    (folder / name).write_text("other")
    assert fingerprint(folder) != before


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "tokenizer.json", "2_Dense/pytorch_model.bin"])
def test_missing_file_is_another_model(name: str, folder: Path) -> None:
    before = fingerprint(folder)
    (folder / name).unlink()
    assert fingerprint(folder) != before


def test_files_that_no_library_reads_do_not_count(folder: Path) -> None:
    before = fingerprint(folder)
    for name in ("README.md", ".gitattributes", "data_config.json", "onnx/config.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("notes")
    assert fingerprint(folder) == before


def test_links_of_a_local_model_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    cached = tmp_path / "snapshot"
    for name in FILES:
        (cached / name).parent.mkdir(parents=True, exist_ok=True)
        (cached / name).symlink_to(folder / name)
    assert fingerprint(cached) == fingerprint(folder)


def test_folder_without_weights_or_with_unreadable_modules_is_refused(folder: Path) -> None:
    (folder / "modules.json").write_text('["?"]')
    with pytest.raises(ConfigurationError, match=r"cannot read .*modules\.json"):
        fingerprint(folder)
    with pytest.raises(ConfigurationError, match="holds no weights"):
        fingerprint(folder / "1_Pooling")


def changed(shipped: Path, name: str, old: str, new: str) -> None:
    path = shipped / name
    text = path.read_text()
    assert old in text
    path.unlink()
    path.write_text(text.replace(old, new, 1))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The shipped model in another place; its files are links, which a test replaces before it writes."""
    shipped = find_weights("").folder
    return Path(shutil.copytree(shipped, tmp_path / "copied", copy_function=os.symlink))


def test_shipped_model_goes_by_the_sha256_of_its_weights_wherever_it_lies(copied: Path) -> None:
    shipped = find_weights("")
    assert shipped.fingerprint == DEFAULT_SHA256 == find_weights(str(copied)).fingerprint
    with (shipped.folder / WEIGHTS_FILE).open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == DEFAULT_SHA256


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("1_Pooling/config.json", '"pooling_mode_mean_tokens": true', '"pooling_mode_mean_tokens": false'),
        ("tokenizer.json", '"the":1996', '"the":1997'),
        ("config_sentence_transformers.json", "{", '{"truncate_dim": 64,'),
    ],
)
def test_shipped_weights_with_other_settings_are_another_model(name: str, old: str, new: str, copied: Path) -> None:
    changed(copied, name, old, new)
    assert find_weights(str(copied)).fingerprint != DEFAULT_SHA256
    with pytest.raises(ConfigurationError, match="it is another model"):
        find_weights(str(copied), DEFAULT_SHA256)


def test_shipped_package_with_other_settings_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.embedding.weights._shipped_folder", lambda: copied)
    assert find_weights("").fingerprint == DEFAULT_SHA256
    changed(copied, "1_Pooling/config.json", "true", "false")
    with pytest.raises(ConfigurationError, match=r"the files beside .* are not the published ones: reinstall it from requirements\.txt"):
        find_weights("")


def test_process_that_names_a_model_loads_no_other(folder: Path, copied: Path) -> None:
    active = EmbeddingModel(1, "all-MiniLM-L6-v2", "v", 384, DEFAULT_SHA256)
    target = EmbeddingModel(2, "new", "v", 64, fingerprint(folder), str(folder), is_active=False)
    assert find_source("", target) == str(folder)
    assert find_source(str(copied), active) == str(copied)
    with pytest.raises(ConfigurationError, match=r"EMBEDDING_MODEL pins .*/copied, and the database is changing to new: unset it"):
        find_source(str(copied), target)
    with pytest.raises(ConfigurationError, match="the database expects vectors of all-MiniLM-L6-v2"):
        find_source(str(folder), active)


def test_model_that_is_nowhere_is_named_as_it_was_given() -> None:
    with pytest.raises(ConfigurationError, match=r"^embedding model '/nonexist' is no folder"):
        find_weights("/nonexist")
