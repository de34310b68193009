"""Decides by measurement whether this machine should encode in bfloat16: only where it is clearly faster and agrees with float32."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["fp32", "bf16"]
Encode = Callable[[Sequence[str]], NDArray[np.float32]]

MIN_SPEEDUP = 1.15
"""Below this the gain is not worth rounded vectors, and may be noise."""

MIN_COSINE = 0.999
"""Smallest agreement of a bfloat16 vector with its float32 one, over all probes."""

BUDGET_SECONDS = 0.7
"""No further round starts after this; a machine that emulates bfloat16 slowly is given up after its first pass."""

ROUNDS = 3

PROBES = (
    "deploy failed again",
    "¿Quién aprobó el presupuesto?",
    "Maria prefers the morning train.",
    "la contraseña caducó ayer",
    "retry with exponential backoff",
    "she adopted a grey cat named Olive",
    "Reunión movida al jueves a las 10:30.",
    "The invoice total was 1,284.50 EUR, not 1,248.50.",
    "SELECT count(*) FROM orders WHERE paid IS FALSE",
    "gracias, eso resolvió mi problema",
    (
        "The night build broke because the certificate of the package mirror had expired; we renewed it, pinned the mirror by its "
        "fingerprint and added a check that warns two weeks before the next expiry."
    ),
    (
        "Durante la revisión el equipo decidió guardar las copias de seguridad en otra región, probar la restauración cada mes y anotar "
        "cuánto tarda, porque la última vez nadie sabía si los datos estaban completos."
    ),
    (
        "He said that after the marathon he wants to spend a quiet autumn by the lake, read the three novels his sister gave him, and "
        "learn to bake the dark bread his grandmother used to make on Sundays."
    ),
    (
        "El cliente pidió que los informes lleguen en formato abierto, con los importes en euros y las fechas completas, y que se le avise "
        "por correo si algún archivo falta antes del cierre del trimestre."
    ),
)
"""Sentences of the kind agents store: short and long, English and Spanish, prose, numbers and code."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the probes showed.

    Attributes:
        precision: The one to use.
        speedup: Seconds in float32 over seconds in bfloat16, best round of each; 0 when it was given up.
        min_cosine: Smallest cosine between the two vectors of a probe.
    """

    precision: Precision
    speedup: float
    min_cosine: float


def choose_precision(fp32: Encode, bf16: Encode, clock: Callable[[], float] = time.process_time) -> Measurement:
    """Return the precision to encode in, from a race of the two over the probes.

    Args:
        fp32: Encodes texts to unit vectors (n, d) in float32.
        bf16: The same in bfloat16.
        clock: Seconds of this process's CPU, which other processes do not stretch: workers that start together choose alike.
    """
    started = clock()
    # The first pass of each warms its kernels up, and gives the vectors to compare.
    expected, found = fp32(PROBES), bf16(PROBES)
    min_cosine = float(np.min(np.sum(expected * found, axis=1)))
    best = {"fp32": np.inf, "bf16": np.inf}
    for _ in range(ROUNDS):
        if not min_cosine >= MIN_COSINE or clock() - started > BUDGET_SECONDS:
            break
        # Alternating rounds and the best of each: another process disturbs both alike.
        best["fp32"] = min(best["fp32"], _seconds(fp32, clock))
        best["bf16"] = min(best["bf16"], _seconds(bf16, clock))
    speedup = best["fp32"] / best["bf16"] if np.isfinite(best["bf16"]) else 0.0
    return Measurement("bf16" if speedup >= MIN_SPEEDUP else "fp32", speedup, min_cosine)


def _seconds(encode: Encode, clock: Callable[[], float]) -> float:
    started = clock()
    encode(PROBES)
    return clock() - started
