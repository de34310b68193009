"""What encoding makes of a piece of work."""

from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray


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


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """The model that the database expects vectors from."""

    model_id: int
    name: str
    version: str
    dimensions: int
    fingerprint: str
