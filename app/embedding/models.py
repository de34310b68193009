"""Embedding models, and what encoding makes of a piece of work."""

from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A model that the database knows.

    Attributes:
        model_id: Its number.
        name: What people call it.
        version: Names model and pooling together; stands on every episode that it embedded.
        dimensions: Length of its vectors.
        fingerprint: sha256 over the files that shape its vectors, hexadecimal; of the shipped model, that of its weights.
        source: Where a process finds its files: a folder, the name of a locally cached model, or '' for the shipped one.
        is_active: Whether it is the one in use, and not the target of a migration.
    """

    model_id: int
    name: str
    version: str
    dimensions: int
    fingerprint: str
    source: str = ""
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class ModelsInUse:
    """The model that vectors are of, and during a migration the one that they will be of."""

    active: EmbeddingModel
    target: EmbeddingModel | None = None

    def find(self, model_id: int) -> EmbeddingModel | None:
        """Return the model of that number, or None when it is not in use."""
        return next((model for model in (self.active, self.target) if model is not None and model.model_id == model_id), None)


@dataclass(frozen=True, slots=True)
class ChunkVector:
    """One chunk of an episode: the characters [char_start, char_end) of its content, and their unit vector."""

    char_start: int
    char_end: int
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one target: at least one chunk, and `pooled`, the length-weighted mean of all, of unit length."""

    target_id: UUID
    agent_id: str
    input_sha256: bytes
    chunks: tuple[ChunkVector, ...]
    pooled: NDArray[np.float32]
