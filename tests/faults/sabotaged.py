"""The workers' application with an encoder that misbehaves on marked texts: `celery -A tests.faults.sabotaged worker`."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import bootstrap
from app.embedding import encoder as encoder_module
from app.embedding.breaker import PROBE
from app.embedding.encoder import Encoder
from tasks.celery_app import app
from tests.factories.encoder import FakeEncoder
from tests.faults.switches import ENCODER_VARIABLE, POISONS, Switches, poison

Vectors = NDArray[np.float32]

_HANG_SECONDS = 3600.0

_switches = Switches.of_this_process()


def _sleep(seconds: Any) -> None:
    """Sleep by waiting on a lock."""
    threading.Event().wait(seconds)


if "FAKETIME" in os.environ:
    # libfaketime 0.9.10 refuses clock_nanosleep on the monotonic clock when it is told to leave that one alone.
    time.sleep = _sleep


class SabotageError(RuntimeError):
    """What a poisonous text raises."""


def _sabotage(encoder: Encoder) -> Encoder:
    """Make an encoder misbehave where a text or a switch says so; everything else it does as before."""
    encode: Callable[[Sequence[str]], Vectors] = encoder.encode_documents
    spoiled: list[str] = []

    def encode_documents(texts: Sequence[str]) -> Vectors:
        if _switches.get("model_down"):
            raise SabotageError
        if list(texts) == PROBE:
            return encode(texts)
        time.sleep(float(_switches.get("delay") or 0))
        spoiled[:] = [] if _switches.get("cured") else [kind for kind in POISONS if any(poison(kind) in text for text in texts)]
        try:
            for kind in spoiled:
                _before.get(kind, lambda: None)()
            return encode(texts)
        finally:
            spoiled.clear()

    def forward(tokens: Any) -> Vectors:
        vectors = honest(tokens)
        if "nan" in spoiled:
            vectors = np.full_like(vectors, np.nan)
        return vectors[:, :-1] if "dimension" in spoiled else vectors

    # The model's own output is spoiled, so that the service's checks of it are what is tried.
    honest: Callable[[Any], Vectors] = encoder._forward
    if not isinstance(encoder, FakeEncoder):
        encoder._forward = forward  # type: ignore[method-assign]
    encoder.encode_documents = encode_documents  # type: ignore[method-assign]
    return encoder


def _raise() -> None:
    raise SabotageError


def _run_out_of_memory() -> None:
    raise MemoryError


_before: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "memory": _run_out_of_memory,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(_HANG_SECONDS),
}

_honest_load = encoder_module.load_encoder


def _load(*arguments: Any, **named: Any) -> Encoder:
    """Stand in for load_encoder: the real model, or the fake one where the model is not at risk."""
    time.sleep(float(_switches.get("slow_start") or 0))
    fake = os.environ.get(ENCODER_VARIABLE) == "fake"
    return _sabotage(FakeEncoder() if fake else _honest_load(*arguments, **named))


bootstrap.load_encoder = _load  # type: ignore[attr-defined]
# A spawned child imports what this names before it loads its model.
app.conf.include = [*app.conf.include, __name__]
