"""Turns texts into unit vectors with a local sentence-transformers model."""

import copy
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from app.embedding.chunking import Chunk, Chunker, pool, untruncated
from app.embedding.models import EmbeddingModel
from app.embedding.precision import Measurement, Precision, choose_precision
from app.embedding.weights import Weights, find_weights, go_offline, other_model
from app.errors import ConfigurationError, EncoderUnavailable, NexusError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = structlog.get_logger(__name__)

BATCH_TOKENS = 1024
"""Tokens of one forward pass, padding included. Measured on CPU: 8192 is 12 % (bf16) to 40 % (fp32) slower, out of the cache."""

BATCH_ROWS = 32

PASS_TOKENS = 32
"""What one more forward pass costs, in tokens' time: weights are read again. Measured at 23 in float32 and 33 in bfloat16."""

QUERY_CHUNKS = 8
"""Chunks of a long query that are read: about 2,000 tokens; it bounds the time of one search."""


class EncodingFault(NexusError):
    """Texts could not be encoded soundly; `details["rows"]` holds their indexes, `details["reason"]` why."""

    code = "encoding_fault"


class Encoder:
    """A loaded model; safe to call from several threads, because nothing changes after construction.

    Args:
        model: The model on CPU; its first module may have been converted to bfloat16.
        weights: What was loaded.
        precision: What the first module computes in.

    Attributes:
        name: The model's name.
        fingerprint: Which model it is: sha256 over the files that shape its vectors, hexadecimal.
        precision: 'fp32' or 'bf16'.
        dimensions: Length of a vector.
        max_tokens: Longest input, special tokens included.
        tokenizer: The model's tokenizer, without truncation and padding.
    """

    def __init__(self, model: "SentenceTransformer", weights: Weights, precision: Precision) -> None:
        dimensions, max_tokens = model.get_embedding_dimension(), model.get_max_seq_length()
        if dimensions is None or max_tokens is None:
            raise ConfigurationError(f"embedding model {weights.name}: it names no dimensions or no longest input")
        self.name = weights.name
        self.fingerprint = weights.fingerprint
        self.precision: Precision = precision
        self.dimensions = dimensions
        self.max_tokens = max_tokens
        self.tokenizer = untruncated(model.tokenizer.backend_tokenizer)
        self._modules: list[Any] = list(model)
        self._pad_token = int(model.tokenizer.pad_token_id or 0)
        self._needs_token_types = "token_type_ids" in model.tokenizer.model_input_names
        self._query_chunker = Chunker(self.tokenizer, max_tokens, overlap_tokens=min(50, max_tokens // 4))

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text.

        Args:
            texts: Encoder inputs of at most max_tokens tokens, as Chunker makes them, in any order.

        Returns:
            Shape (len(texts), dimensions); row i belongs to texts[i].

        Raises:
            EncodingFault: A text is longer than the model reads (it is never cut silently), or the model gave a vector of the wrong
                size, without direction or with values that are not finite.
            MemoryError: The batch needs more memory than there is, be it the accelerator's.
        """
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        lengths = [len(ids) for ids in tokens]
        _refuse([i for i, length in enumerate(lengths) if length > self.max_tokens], "longer than the model reads")
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for rows in _batches(lengths):
            try:
                found = self._forward([tokens[row] for row in rows])
            except RuntimeError as error:
                if _is_out_of_memory(error):
                    raise MemoryError from None
                raise
            if found.shape != (len(rows), self.dimensions):
                _refuse(rows, "wrong dimensions")
            vectors[rows] = found
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        sound = np.isfinite(norms[:, 0]) & (norms[:, 0] > 1e-12)
        _refuse(np.flatnonzero(~sound).tolist(), "not a finite vector with a direction")
        unit: NDArray[np.float32] = vectors / norms
        return unit

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per query, shape (len(texts), dimensions); row i belongs to texts[i].

        A query longer than the model reads is cut like a document, its first QUERY_CHUNKS chunks are encoded, and the length-weighted
        mean stands for it, as it does for a long episode.

        Raises:
            EncodingFault: The model gave no sound vector.
        """
        chunks = [self._query_chunker.chunk(None, text)[:QUERY_CHUNKS] for text in texts]
        vectors = self.encode_documents([chunk.text for of_text in chunks for chunk in of_text])
        ends = accumulate(map(len, chunks))
        return np.stack([_of_one(vectors[end - len(of_text) : end], of_text) for of_text, end in zip(chunks, ends, strict=True)])

    def _forward(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the vectors of one batch, pooled and normalised in float32 whatever the transformer computes in.

        It does what SentenceTransformer.encode does, without what costs up to a quarter of the time there and without its shared, mutable
        tokenizer settings.
        """
        import torch

        ids = np.full((len(tokens), max(map(len, tokens))), self._pad_token, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, row_tokens in enumerate(tokens):
            ids[row, : len(row_tokens)] = row_tokens
            mask[row, : len(row_tokens)] = 1
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self._needs_token_types:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        transformer, *rest = self._modules
        with torch.inference_mode():
            features = transformer(features)
            features["token_embeddings"] = features["token_embeddings"].float()
            for module in rest:
                features = module(features)
            vectors: NDArray[np.float32] = features["sentence_embedding"].numpy()
        return vectors


def _of_one(vectors: NDArray[np.float32], chunks: Sequence[Chunk]) -> NDArray[np.float32]:
    """Return the vector of a text from those of its chunks; a lone chunk's stands for it as it is, be the text empty."""
    if len(chunks) == 1:
        lone: NDArray[np.float32] = vectors[0]
        return lone
    return pool(vectors, [chunk.char_end - chunk.char_start for chunk in chunks])


def require_model(encoder: Encoder, model: EmbeddingModel) -> Encoder:
    """Return the encoder, which must be the model that the database expects.

    Raises:
        ConfigurationError: It is another.
    """
    if (model.fingerprint, model.dimensions) != (encoder.fingerprint, encoder.dimensions):
        raise ConfigurationError(other_model(model, encoder.name, encoder.fingerprint))
    return encoder


def _refuse(rows: Sequence[int], reason: str) -> None:
    if rows:
        raise EncodingFault(f"{len(rows)} texts could not be encoded: {reason}", rows=list(rows), reason=reason)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch ran out of memory: of an accelerator, which has a class, or of the machine, which has only a text."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Return the indexes of texts in batches of like length, shortest first, each within BATCH_TOKENS (or one text) and BATCH_ROWS.

    Of all ways to cut the sorted texts it takes the cheapest, counting padded tokens and PASS_TOKENS for each batch: with 32 texts of
    mixed length to a call, filling batches up would spend half the time on padding.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    cheapest, first_of_last = [0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        rows = max(1, min(BATCH_ROWS, BATCH_TOKENS // max(1, longest), end))
        cost, first = min((cheapest[end - size] + PASS_TOKENS + size * longest, end - size) for size in range(1, rows + 1))
        cheapest.append(cost)
        first_of_last.append(first)
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[first_of_last[end] : end])
        end = first_of_last[end]
    return batches[::-1]


def load_encoder(model: str, precision: Literal["auto", "fp32", "bf16"], threads: int) -> Encoder:
    """Return an encoder for a model on this machine; nothing is ever downloaded.

    The heavy libraries are imported here and not with this module, so that a process that only talks to the database stays small.

    Args:
        model: A folder or the name of a locally cached model; '' for the shipped all-MiniLM-L6-v2, whose weights are pinned.
        precision: 'auto' measures (under 1.5 s) and takes bf16 only where it is clearly faster and agrees with fp32.
        threads: Threads of torch in this process, at least 1.

    Raises:
        ConfigurationError: The weights are missing or are not the pinned ones, or the model does not say its sizes.
        EncoderUnavailable: The files are there and the model cannot be built from them.
    """
    started = time.perf_counter()
    go_offline()
    weights = find_weights(model)
    import torch

    torch.set_num_threads(threads)
    loaded = _load_model(weights)
    encoder, measurement = _at_precision(loaded, weights, precision)
    log.info(
        "encoder_loaded",
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        dimensions=encoder.dimensions,
        precision=encoder.precision,
        speedup=round(measurement.speedup, 2) if measurement else None,
        min_cosine=round(measurement.min_cosine, 5) if measurement else None,
        threads=threads,
        seconds=round(time.perf_counter() - started, 2),
    )
    return encoder


def _load_model(weights: Weights) -> "SentenceTransformer":
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(str(weights.folder), device="cpu", local_files_only=True).eval()
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise EncoderUnavailable(f"embedding model {weights.name}: cannot be loaded: {type(error).__name__}") from error


def _at_precision(
    model: "SentenceTransformer", weights: Weights, precision: Literal["auto", "fp32", "bf16"]
) -> tuple[Encoder, Measurement | None]:
    """Return the encoder in the wanted precision, and the measurement if one was made."""
    if precision == "fp32":
        return Encoder(model, weights, "fp32"), None
    halved = model if precision == "bf16" else copy.deepcopy(model)
    halved[0].bfloat16()
    bf16 = Encoder(halved, weights, "bf16")
    if precision == "bf16":
        return bf16, None
    fp32 = Encoder(model, weights, "fp32")
    measurement = choose_precision(fp32.encode_documents, bf16.encode_documents)
    return (bf16 if measurement.precision == "bf16" else fp32), measurement
