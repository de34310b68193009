"""bfloat16 is taken only where it is clearly faster and agrees with float32."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from app.embedding.precision import PROBES, choose_precision


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Model:
    """Encodes every text to one direction, taking a set number of seconds."""

    def __init__(self, clock: Clock, seconds: float, tilt: float = 0.0) -> None:
        self.clock, self.seconds, self.calls = clock, seconds, 0
        self.vector = np.array([np.cos(tilt), np.sin(tilt)], dtype=np.float32)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        self.clock.now += self.seconds
        return np.tile(self.vector, (len(texts), 1))


@pytest.mark.parametrize(
    ("fp32_seconds", "bf16_seconds", "tilt", "expected"),
    [
        pytest.param(0.10, 0.05, 0.0, "bf16", id="twice-as-fast"),
        pytest.param(0.10, 0.095, 0.0, "fp32", id="hardly-faster"),
        pytest.param(0.10, 0.20, 0.0, "fp32", id="slower"),
        pytest.param(0.10, 0.05, 0.06, "fp32", id="fast-but-different"),
        pytest.param(0.10, 0.05, float("nan"), "fp32", id="not-a-number"),
        pytest.param(0.10, 9.0, 0.0, "fp32", id="emulated"),
    ],
)
def test_precision_follows_speed_and_agreement(fp32_seconds: float, bf16_seconds: float, tilt: float, expected: str) -> None:
    clock = Clock()
    measurement = choose_precision(Model(clock, fp32_seconds), Model(clock, bf16_seconds, tilt), clock)
    assert measurement.precision == expected


def test_a_machine_that_emulates_bf16_is_given_up_after_one_pass() -> None:
    clock = Clock()
    slow = Model(clock, 9.0)
    choose_precision(Model(clock, 0.1), slow, clock)
    assert slow.calls == 1


def test_probes_are_short_and_long_and_different() -> None:
    lengths = [len(probe) for probe in PROBES]
    assert len(set(PROBES)) == len(PROBES)
    assert min(lengths) < 30
    assert max(lengths) > 180
