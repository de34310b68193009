"""Every character of a content is in some chunk, and no chunk is longer than the model reads."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from app.embedding.chunking import Chunk, Chunker, pool, untruncated
from app.embedding.weights import find_weights

TOKENIZER = Tokenizer.from_file(str(find_weights("").folder / "tokenizer.json"))
COUNTER = untruncated(TOKENIZER)
CHUNKER = Chunker(TOKENIZER)
SMALL = Chunker(TOKENIZER, max_tokens=32, overlap_tokens=8)

UNICODE = st.characters(exclude_categories=["Cs"])
FRAGMENTS = st.one_of(
    st.text(UNICODE, max_size=60),
    st.text("ab .\n\t", max_size=80),
    st.text("漢字かな한국어", max_size=60),
    st.text("e\u0301\u0302\u0308\u200d\ufe0f", max_size=40),
    st.text(["\U0001f469", "\u200d", "\U0001f4bb", "\U0001f1ea", "\U0001f1f8", "\U0001f3fd"], max_size=40),
    st.text("\x00\x01\x07\x1b\x7f\x85\u200b\u2028\ufeff", max_size=40),
    st.sampled_from(
        ["\n\n", " " * 200, "\n" * 150, "x" * 99 + ".", "q" * 150, "[CLS][SEP]", "The bus left at noon. ", "supercalifragilistic ", "¿Qué?"]
    ),
)
CONTENTS = st.lists(st.tuples(FRAGMENTS, st.integers(1, 6)), max_size=25).map(lambda parts: "".join(text * times for text, times in parts))
ACTORS = st.one_of(st.none(), st.sampled_from(["", " ", "Ana", "Dr. José Ñandú (él)", "x y " * 60]), st.text(UNICODE, max_size=150))

PROSE = " ".join(f"Sentence number {i} says that the {i % 7} boats left the harbour before noon." for i in range(3000))


def tokens(text: str) -> int:
    return len(COUNTER.encode(text))


def seconds_and_chunks(content: str) -> tuple[float, list[Chunk]]:
    began = time.process_time()
    chunks = CHUNKER.chunk("Maria", content)
    return time.process_time() - began, chunks


def assert_sound(chunks: list[Chunk], actor: str | None, content: str, max_tokens: int) -> None:
    covered = 0
    starts = [chunk.char_start for chunk in chunks]
    assert starts == sorted(starts)
    assert starts[0] == 0
    for chunk in chunks:
        assert chunk.char_start <= covered, "a gap"
        assert chunk.char_end > covered or not content
        assert chunk.text.endswith(content[chunk.char_start : chunk.char_end])
        prefix = chunk.text[: len(chunk.text) - (chunk.char_end - chunk.char_start)]
        assert prefix.endswith(": ") if actor and actor.strip() else prefix == ""
        assert tokens(chunk.text) <= max_tokens
        covered = chunk.char_end
    assert covered == len(content)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACTORS, CONTENTS)
def test_any_text_is_covered_in_order_within_the_token_limit(actor: str | None, content: str) -> None:
    assert_sound(SMALL.chunk(actor, content), actor, content, 32)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACTORS, CONTENTS.map(lambda content: content * 8))
def test_any_long_text_is_covered_at_the_default_size(actor: str | None, content: str) -> None:
    assert_sound(CHUNKER.chunk(actor, content), actor, content, 256)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("a" * 200_000, id="one-letter"),
        pytest.param("ab1+/" * 40_000, id="no-space"),
        pytest.param(("x" * 99 + ".") * 2_000, id="long-words"),
        pytest.param("漢字" * 100_000, id="cjk"),
        pytest.param("\U0001f469\u200d\U0001f4bb" * 66_000, id="emoji"),
        pytest.param("e\u0301\u0302" * 66_000, id="combining-marks"),
        pytest.param(" \n\t" * 66_000, id="whitespace"),
        pytest.param("\n\n" * 90_000 + "word " * 3_000, id="blank-lines-then-text"),
        pytest.param("\u200b" * 190_000 + "word " * 2_000, id="invisible-then-text"),
        pytest.param("\x00a" * 100_000, id="control-characters"),
        pytest.param("a\n\n" * 66_000, id="tiny-paragraphs"),
        pytest.param("." * 200_000, id="dots"),
        pytest.param("[CLS]" * 40_000, id="special-tokens"),
        pytest.param(PROSE[:200_000], id="english"),
    ],
)
def test_200_000_characters_are_chunked_quickly_and_soundly(content: str) -> None:
    prose, _ = seconds_and_chunks(PROSE[:200_000])
    seconds, chunks = seconds_and_chunks(content)
    # The worst takes five times what prose takes in the same minute on the same machine; quadratic work takes hundreds of times that.
    assert seconds < 25 * prose
    assert_sound(chunks, "Maria", content, 256)


def test_text_that_fits_is_one_chunk_of_everything() -> None:
    assert CHUNKER.chunk("Ana", "El tren sale a las nueve.") == [Chunk(0, 25, "Ana: El tren sale a las nueve.")]
    assert CHUNKER.chunk(None, "hello") == CHUNKER.chunk("  ", "hello") == [Chunk(0, 5, "hello")]
    assert CHUNKER.chunk(None, "") == [Chunk(0, 0, "")]


def test_text_of_exactly_the_limit_is_one_chunk_and_one_token_more_is_two() -> None:
    assert tokens("word " * 254) == 256
    assert len(CHUNKER.chunk(None, "word " * 254)) == 1
    assert len(CHUNKER.chunk(None, "word " * 255)) == 2


def test_prose_overlaps_by_about_the_asked_tokens_and_starts_at_words() -> None:
    chunks = CHUNKER.chunk("Ana", PROSE[:40_000])
    assert len(chunks) > 20
    for before, chunk in pairwise(chunks):
        shared = PROSE[chunk.char_start : before.char_end]
        assert 40 <= len(COUNTER.encode(shared, add_special_tokens=False)) <= 50
        assert PROSE[chunk.char_start - 1].isspace()
        assert PROSE[before.char_end - 2 : before.char_end] == ". "
    assert np.mean([tokens(chunk.text) for chunk in chunks[:-1]]) > 230, "chunks are well filled"


def test_no_overlap_asked_gives_a_partition() -> None:
    chunks = Chunker(TOKENIZER, overlap_tokens=0).chunk(None, PROSE[:20_000])
    assert "".join(chunk.text for chunk in chunks) == PROSE[:20_000]


def test_repetitive_text_keeps_true_offsets() -> None:
    content = "again and again. " * 2_000
    chunks = CHUNKER.chunk(None, content)
    assert all(before.char_end > chunk.char_start > before.char_start for before, chunk in pairwise(chunks))
    assert_sound(chunks, None, content, 256)


def test_long_paragraph_between_short_ones_leaves_no_scraps() -> None:
    content = "Short note.\n\n" + PROSE[:6_000] + "\n\nThe end."
    assert min(chunk.char_end - chunk.char_start for chunk in CHUNKER.chunk(None, content)) > 100


def test_long_actor_is_abbreviated_the_same_way_each_time_and_content_keeps_its_room() -> None:
    actor = "The Honourable Committee for the Preservation of Remarkably Verbose Institutional Designations " * 8
    chunks = CHUNKER.chunk(actor, PROSE[:20_000])
    prefix = chunks[0].text[: chunks[0].text.index("…: ") + 3]
    assert all(chunk.text.startswith(prefix) for chunk in chunks)
    assert actor.startswith(prefix[:-3])
    assert 40 <= len(COUNTER.encode(prefix, add_special_tokens=False)) <= 48
    assert chunks == Chunker(TOKENIZER).chunk(actor, PROSE[:20_000])
    assert CHUNKER.chunk(actor, "hi")[0].text == prefix + "hi"


def test_tokenizer_passed_in_keeps_its_truncation() -> None:
    before = (TOKENIZER.truncation, TOKENIZER.padding)
    Chunker(TOKENIZER).chunk(None, PROSE[:5_000])
    assert before == (TOKENIZER.truncation, TOKENIZER.padding)
    assert before[0] is not None


def test_sizes_without_room_for_content_are_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        Chunker(TOKENIZER, max_tokens=32, overlap_tokens=30)
    with pytest.raises(ValueError, match="no room"):
        Chunker(TOKENIZER, overlap_tokens=-1)


def test_pool_weighs_by_length_and_has_unit_length() -> None:
    pooled = pool(np.array([[1, 0], [0, 1]], dtype=np.float32), [300, 100])
    assert pooled.dtype == np.float32
    assert pooled == pytest.approx(np.array([3, 1]) / np.sqrt(10), abs=1e-6)
    assert np.linalg.norm(pool(np.random.default_rng(1).normal(size=(9, 384)).astype(np.float32), range(1, 10))) == pytest.approx(
        1, abs=1e-6
    )


@pytest.mark.parametrize(
    ("vectors", "lengths"),
    [([[np.nan, 1.0]], [1]), ([[np.inf, 1.0]], [1]), ([[1.0, 0.0], [-1.0, 0.0]], [1, 1]), ([[1.0, 0.0]], [1, 2]), (np.empty((0, 2)), [])],
)
def test_vectors_without_a_mean_direction_are_refused(vectors: list[list[float]], lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"cannot pool|no direction"):
        pool(np.asarray(vectors, dtype=np.float32), lengths)


def test_shipped_tokenizer_file_is_where_the_encoder_finds_it() -> None:
    assert Path(find_weights("").folder, "tokenizer.json").is_file()
