"""The real model gives the right vector to the right text, in either precision, and says so when it cannot."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.embedding.chunking import Chunker, pool
from app.embedding.encoder import BATCH_ROWS, BATCH_TOKENS, Encoder, EncodingFault, _batches, load_encoder
from app.embedding.precision import PROBES, choose_precision
from app.embedding.weights import DEFAULT_SHA256, find_weights
from app.errors import ConfigurationError, EncoderUnavailable

SENTENCES = [
    *PROBES,
    *(f"On day {day} the gardener planted {day * 3} tulips" + " beside the old stone wall near the gate" * (day % 9) for day in range(70)),
    "",
    "   ",
    "日本語の文章もあります。",
    "🎉🎉",
]
LONG = " ".join(f"Paragraph {i} is about the maintenance of the northern lighthouse and its keeper." for i in range(400))


def encoded_as_query(encoder: Encoder, text: str) -> NDArray[np.float32]:
    """Return the vector of a lone query."""
    vector: NDArray[np.float32] = encoder.encode_queries([text])[0]
    return vector


@pytest.fixture(scope="module")
def fp32() -> Encoder:
    return load_encoder("", "fp32", threads=1)


@pytest.fixture(scope="module")
def bf16() -> Encoder:
    return load_encoder("", "bf16", threads=1)


def test_encoder_describes_the_shipped_model(fp32: Encoder) -> None:
    assert (fp32.name, fp32.dimensions, fp32.max_tokens, fp32.precision) == ("all-MiniLM-L6-v2", 384, 256, "fp32")
    assert fp32.fingerprint == DEFAULT_SHA256
    assert fp32.tokenizer.truncation is None
    assert fp32.tokenizer.padding is None


def test_rows_belong_to_their_texts_whatever_the_order(fp32: Encoder) -> None:
    vectors = fp32.encode_documents(SENTENCES)
    assert vectors.shape == (len(SENTENCES), 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    order = np.random.default_rng(7).permutation(len(SENTENCES))
    assert fp32.encode_documents([SENTENCES[i] for i in order]) == pytest.approx(vectors[order], abs=1e-5)
    for row, text in enumerate(SENTENCES):
        assert encoded_as_query(fp32, text) == pytest.approx(vectors[row], abs=1e-5), text


def test_vectors_equal_those_of_sentence_transformers(fp32: Encoder) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(find_weights("").folder), device="cpu", local_files_only=True).encode(SENTENCES)
    assert fp32.encode_documents(SENTENCES) == pytest.approx(reference, abs=1e-4)


def test_bf16_agrees_with_fp32_and_gives_unit_float32(fp32: Encoder, bf16: Encoder) -> None:
    vectors = bf16.encode_documents(SENTENCES)
    assert bf16.precision == "bf16"
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.min(np.sum(vectors * fp32.encode_documents(SENTENCES), axis=1)) > 0.998


@given(st.lists(st.integers(2, 3000), max_size=150))
def test_batches_hold_each_text_once_within_their_bounds(lengths: list[int]) -> None:
    batches = _batches(lengths)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 0 < len(batch) <= BATCH_ROWS
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= BATCH_TOKENS


def test_one_long_text_does_not_pad_the_short_ones() -> None:
    assert _batches([10] * 15 + [60] + [10] * 15) == [[*range(15), *range(16, 31)], [15]]
    assert _batches([10, 11, 12]) == [[0, 1, 2]]


def test_no_texts_give_no_rows(fp32: Encoder) -> None:
    assert fp32.encode_documents([]).shape == (0, 384)


def test_text_beyond_the_limit_is_refused_by_index_and_never_cut(fp32: Encoder) -> None:
    with pytest.raises(EncodingFault) as caught:
        fp32.encode_documents(["short", LONG, "short"])
    assert caught.value.code == "encoding_fault"
    assert caught.value.details["rows"] == [1]
    assert "lighthouse" not in str(caught.value)


def test_every_token_up_to_the_limit_counts(fp32: Encoder) -> None:
    full = "word " * 253
    assert encoded_as_query(fp32, full + "apple") @ encoded_as_query(fp32, full + "treaty") < 0.99999


def test_chunks_fit_the_model_and_their_last_sentence_matters(fp32: Encoder) -> None:
    def vector(content: str) -> Any:
        chunks = Chunker(fp32.tokenizer, fp32.max_tokens).chunk("Ana", content)
        return pool(fp32.encode_documents([c.text for c in chunks]), [c.char_end - c.char_start for c in chunks])

    lamp, violin = vector(LONG + " The lamp was blue."), vector(LONG + " We sold the violin in Oslo.")
    assert np.abs(lamp - violin).max() > 1e-4, "a hundred times what rounding does"
    assert lamp == pytest.approx(vector(LONG + " The lamp was blue."), abs=1e-6)


def test_long_query_is_pooled_from_its_first_chunks(fp32: Encoder) -> None:
    chunks = Chunker(fp32.tokenizer, fp32.max_tokens).chunk(None, LONG)
    assert len(chunks) > 8
    head = LONG[: chunks[7].char_end]
    assert encoded_as_query(fp32, LONG) == pytest.approx(encoded_as_query(fp32, head), abs=0.02)
    assert np.linalg.norm(encoded_as_query(fp32, LONG)) == pytest.approx(1, abs=1e-5)


def test_long_and_short_queries_together_are_each_what_they_are_alone(fp32: Encoder) -> None:
    queries = ["where is the keeper?", LONG, "", LONG[len(LONG) // 2 :], "the lighthouse"]
    together = fp32.encode_queries(queries)
    assert together.shape == (5, 384)
    for query, vector in zip(queries, together, strict=True):
        assert vector == pytest.approx(encoded_as_query(fp32, query), abs=1e-5)


def test_threads_share_one_encoder(fp32: Encoder) -> None:
    expected = fp32.encode_documents(SENTENCES)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(partial(encoded_as_query, fp32), SENTENCES * 3))
    assert np.array(found) == pytest.approx(np.tile(expected, (3, 1)), abs=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_unsound_vectors_are_refused_by_index(fp32: Encoder, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    forward = Encoder._forward
    poison = fp32.tokenizer.token_to_id("poison")

    def broken(self: Encoder, tokens: list[list[int]]) -> Any:
        vectors = forward(self, tokens)
        for row, ids in enumerate(tokens):
            if poison in ids:
                vectors[row] = value
        return vectors

    monkeypatch.setattr(Encoder, "_forward", broken)
    with pytest.raises(EncodingFault) as caught:
        fp32.encode_documents(["fine", "poison here", "also fine but rather longer", "poison"])
    assert caught.value.details["rows"] == [1, 3]


def test_wrong_dimension_is_refused(fp32: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "_forward", lambda self, tokens: np.ones((len(tokens), 3), dtype=np.float32))
    with pytest.raises(EncodingFault, match="wrong dimensions"):
        fp32.encode_documents(["a", "b"])


def test_automatic_precision_is_measured_quickly_and_logged() -> None:
    spent: list[float] = []

    def timed(*models: Any) -> Any:
        started = time.perf_counter()
        measurement = choose_precision(*models)
        spent.append(time.perf_counter() - started)
        return measurement

    with pytest.MonkeyPatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr("app.embedding.encoder.choose_precision", timed)
        chosen = load_encoder("", "auto", threads=1)
    (event,) = [entry for entry in logs if entry["event"] == "encoder_loaded"]
    assert event["precision"] == chosen.precision
    assert event["min_cosine"] >= 0.999 or chosen.precision == "fp32"
    assert event["speedup"] >= 1.15 or chosen.precision == "fp32"
    # Alone it takes under 1.2 s; the limit leaves room for a busy machine.
    assert spent[0] < 4


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys, app.embedding.encoder; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'sentence_transformers')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_loading_prints_nothing_and_opens_no_connection(tmp_path: Path) -> None:
    code = (
        "import socket, structlog\n"
        "def refuse(*args, **kwargs): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "structlog.configure(logger_factory=structlog.ReturnLoggerFactory())\n"
        "from app.embedding.encoder import load_encoder\n"
        "assert load_encoder('', 'fp32', 1).encode_queries(['hello']).shape == (1, 384)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def copied_model(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "model"
    shutil.copytree(find_weights("").folder, folder)
    yield folder
    shutil.rmtree(folder)


def test_a_folder_of_ones_own_is_loaded_under_its_own_fingerprint(copied_model: Path) -> None:
    encoder = load_encoder(str(copied_model), "fp32", threads=1)
    assert (encoder.name, encoder.fingerprint) == (str(copied_model), DEFAULT_SHA256)


def test_damaged_weights_are_refused(copied_model: Path) -> None:
    weights = copied_model / "model.safetensors"
    os.truncate(weights, 1_000_000)
    with pytest.raises(ConfigurationError, match=r"has sha256 .* and not 53aa51"):
        find_weights(str(copied_model), DEFAULT_SHA256)
    with pytest.raises(EncoderUnavailable, match="cannot be loaded"):
        load_encoder(str(copied_model), "fp32", threads=1)
    weights.unlink()
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_encoder(str(copied_model), "fp32", threads=1)


def test_shipped_weights_that_are_not_the_pinned_ones_stop_the_process(copied_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (copied_model / "model.safetensors").open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"\x01")
    found = SimpleNamespace(submodule_search_locations=[str(copied_model.parent)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    with pytest.raises(ConfigurationError, match="reinstall"):
        load_encoder("", "fp32", threads=1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="not installed"):
        load_encoder("", "fp32", threads=1)


@pytest.mark.parametrize("name", ["no-such/model", "/no/such/folder", "no such model"])
def test_a_model_that_is_not_here_is_not_downloaded(name: str) -> None:
    with pytest.raises(ConfigurationError, match="never downloaded"):
        load_encoder(name, "fp32", threads=1)
