"""An encoder without a model: deterministic, fast, and near for texts that share words."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from app.embedding.breaker import PROBE
from app.embedding.encoder import Encoder
from app.embedding.weights import DEFAULT_SHA256

DIMENSIONS = 384
_WORD = re.compile(r"\w+")


@lru_cache(maxsize=50_000)
def _word_vector(word: str) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = np.random.default_rng(crc32(word.encode())).standard_normal(DIMENSIONS).astype(np.float32)
    return vector


def embed(text: str, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    """Return the unit vector of a text: the sum of random vectors of its words, so shared words bring texts near."""
    total = np.sum([_word_vector(word)[:dimensions] for word in _WORD.findall(text.lower()) or [""]], axis=0)
    unit: NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
    return unit


def _word_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return tokenizer


class FakeEncoder(Encoder):
    """Stands in for the model where the model is not the risk; the database takes it for the real one by its fingerprint.

    Attributes:
        before: Called with the texts before they are encoded; it may raise, or change the world in between.
        spoil: Called with the texts and their vectors; what it returns is what the caller gets.
        calls: How many texts each call had, probes of the breaker aside.
        broken: Raises for every text, probes included; None while the model is sound.
    """

    def __init__(self, fingerprint: str = DEFAULT_SHA256, dimensions: int = DIMENSIONS) -> None:
        self.name = "fake"
        self.fingerprint = fingerprint
        self.precision = "fp32"
        self.dimensions = dimensions
        self.max_tokens = 256
        self.tokenizer = _word_tokenizer()
        self.before: Callable[[Sequence[str]], object] = lambda _: None
        self.spoil: Callable[[Sequence[str], NDArray[np.float32]], NDArray[np.float32]] = lambda _, vectors: vectors
        self.calls: list[int] = []
        self.broken: Exception | None = None

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, row i of texts[i]."""
        if self.broken is not None:
            raise self.broken
        if list(texts) == PROBE:
            return np.stack([self._embed(text) for text in texts])
        self.calls.append(len(texts))
        self.before(texts)
        return self.spoil(texts, np.stack([self._embed(text) for text in texts]))

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the unit vectors of queries."""
        return np.stack([self._embed(text) for text in texts])

    def _embed(self, text: str) -> NDArray[np.float32]:
        unit = embed(text, self.dimensions)
        # Another model is another view: its vectors point the other way, so a query of one finds nothing near among the other's.
        return unit if self.fingerprint == DEFAULT_SHA256 else -unit
