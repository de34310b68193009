"""Turns texts into vectors: chunks, one pass of the encoder, and the pooled mean. Equal inputs of one agent are encoded once."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from app.embedding.chunking import Chunk, Chunker, pool
from app.embedding.encoder import Encoder, EncodingFault
from app.embedding.models import ChunkVector, Embedded, EmbeddingModel
from app.queue.models import WorkItem

InputKey = tuple[str, bytes]
"""Whose text, and the hash of the encoder's input: only within one agent may a vector serve twice, or its speed would tell one
agent that another holds the same text."""


def input_sha256(actor: str | None, content: str) -> bytes:
    """Return the hash of the whole encoder input, equal to nexus_memory.encoder_input_sha256 in the database."""
    whole = content if actor is None else f"{actor}: {content}"
    return hashlib.sha256(whole.encode()).digest()


def key_of(item: WorkItem) -> InputKey:
    """Return what a vector of the item may be shared by."""
    return item.agent_id, input_sha256(item.actor, item.content)


class Assembler:
    """Makes the vectors of one model.

    Args:
        model: As the database names it.
        encoder: The same model, loaded.
        chunk_tokens: Longest chunk.
        overlap_tokens: What neighbouring chunks share.
    """

    def __init__(self, model: EmbeddingModel, encoder: Encoder, chunk_tokens: int, overlap_tokens: int) -> None:
        self.model = model
        self.encoder = encoder
        self._chunker = Chunker(encoder.tokenizer, min(chunk_tokens, encoder.max_tokens), overlap_tokens)

    def embed(self, items: Sequence[WorkItem], known: Mapping[InputKey, Sequence[ChunkVector]]) -> list[Embedded]:
        """Return the vectors of the items, in their order.

        Args:
            items: At least one.
            known: Chunk vectors of the same model that are stored already, by whose and which input.

        Raises:
            EncodingFault: The encoder gave no sound vectors.
            Exception: Whatever else the model's libraries raise.
        """
        keys = [key_of(item) for item in items]
        parts = {key: tuple(known[key]) for key, item in zip(keys, items, strict=True) if key in known and _spans(known[key], item)}
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in parts}
        if new:
            parts.update(zip(new, self._encode(list(new.values())), strict=True))
        # One input can be split between actor and content in two ways, and spans are of the content.
        return [
            _assemble(item, key, parts[key] if _spans(parts[key], item) else self._encode([item])[0])
            for item, key in zip(items, keys, strict=True)
        ]

    def _encode(self, items: Sequence[WorkItem]) -> list[tuple[ChunkVector, ...]]:
        chunks = [self._chunker.chunk(item.actor, item.content) for item in items]
        vectors = self.encoder.encode_documents([chunk.text for of_item in chunks for chunk in of_item])
        if vectors.shape != (sum(map(len, chunks)), self.model.dimensions):
            raise EncodingFault("the encoder gave vectors of another shape", reason="wrong dimensions")
        ends = list(accumulate(map(len, chunks)))
        return [_with_spans(of_item, vectors[end - len(of_item) : end]) for of_item, end in zip(chunks, ends, strict=True)]


def _with_spans(chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> tuple[ChunkVector, ...]:
    return tuple(ChunkVector(chunk.char_start, chunk.char_end, vector) for chunk, vector in zip(chunks, vectors, strict=True))


def _spans(parts: Sequence[ChunkVector], item: WorkItem) -> bool:
    return bool(parts) and max(part.char_end for part in parts) == len(item.content)


def _assemble(item: WorkItem, key: InputKey, parts: tuple[ChunkVector, ...]) -> Embedded:
    pooled = pool(np.stack([part.vector for part in parts]), [part.char_end - part.char_start for part in parts])
    return Embedded(item.target_id, item.agent_id, key[1], parts, pooled)
