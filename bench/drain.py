"""How fast stored texts become searchable, against encoding alone and against a loop that encodes and writes."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.baselines import Baseline
from bench.client import Client
from bench.figures import Figure, over_rounds, ratios
from bench.own_stack import OwnStack, empty_database

TARGET_RATIO = 0.8
_POST_EPISODES = 500
_UNIT = "episodes/s"

Report = Callable[[str], None]


@dataclass
class _Rates:
    """Rates of every contender over the rounds; the baselines' by their name."""

    drained: list[float] = field(default_factory=list)
    bare: dict[str, list[float]] = field(default_factory=dict)
    loops: dict[str, list[float]] = field(default_factory=dict)

    def latest(self) -> str:
        """Return the last round for the terminal."""
        loops = ", ".join(f"{rates[-1]:.0f}/s ({name})" for name, rates in self.loops.items())
        bare = ", ".join(f"{rates[-1]:.0f}/s ({name})" for name, rates in self.bare.items())
        return f"stack {self.drained[-1]:.0f}/s; encode() and write {loops}; bare encode() {bare}"


class Contest:
    """The stack and its baselines, which take turns so that a disturbance does not hit one of them alone.

    Args:
        stack: Idle.
        rounds: How often each contender runs.
        report: Is told of each round.
    """

    def __init__(self, stack: OwnStack, rounds: int, report: Report) -> None:
        self._stack = stack
        self._rounds = rounds
        self._report = report

    def measure(self, kinds: Sequence[tuple[str, list[str]]]) -> list[Figure]:
        """Return the figures of each kind of text, given as pairs of a name and the texts."""
        url = self._stack.make_baseline_database()
        precision = self._stack.precision()
        figures: list[Figure] = []
        with Baseline(1, 2, precision, url) as one, Baseline(2, 1, precision, url) as two:
            for kind, texts in kinds:
                rates = _Rates()
                for number in range(1, self._rounds + 1):
                    self._run_round(texts, (one, two), rates)
                    self._report(f"{kind}, round {number}: {rates.latest()}")
                figures += _figures(kind, precision, rates)
        return figures

    def _run_round(self, texts: Sequence[str], baselines: Sequence[Baseline], rates: _Rates) -> None:
        for baseline in baselines:
            # Encoding alone does not slow down as an index grows, so a part of the texts tells its rate.
            rates.bare.setdefault(baseline.name, []).append(baseline.rate(texts[: len(texts) * 2 // 5], write=False))
            empty_database(baseline.url)
            rates.loops.setdefault(baseline.name, []).append(baseline.rate(texts, write=True))
        rates.drained.append(drain_rate(self._stack, texts))


def drain_rate(stack: OwnStack, texts: Sequence[str]) -> float:
    """Empty the stack, store the texts, and return episodes a second from the first POST until the last one is searchable."""
    stack.empty()
    with Client(stack.url, stack.headers) as client:
        started = time.perf_counter()
        for start in range(0, len(texts), _POST_EPISODES):
            client.store_many(texts[start : start + _POST_EPISODES])
        stack.wait_until_searchable()
        return len(texts) / (time.perf_counter() - started)


def _figures(kind: str, precision: str, rates: _Rates) -> list[Figure]:
    fastest = max(rates.bare, key=lambda name: statistics.median(rates.bare[name]))
    # The bar is the simple script: one process. Two processes, which share the work as workers do, are for information.
    simple, shared = rates.loops
    return [
        over_rounds(f"{kind}: stored and searchable", rates.drained, _UNIT, note=f"workers encode in {precision}"),
        *(over_rounds(f"{kind}: bare encode(), {name}", found, _UNIT) for name, found in rates.bare.items()),
        *(over_rounds(f"{kind}: encode() and write, {name}", found, _UNIT) for name, found in rates.loops.items()),
        ratios(f"{kind}: ratio to encode() and write, {simple}", rates.drained, rates.loops[simple], TARGET_RATIO),
        ratios(f"{kind}: ratio to encode() and write, {shared}", rates.drained, rates.loops[shared]),
        ratios(f"{kind}: ratio to bare encode(), {fastest}", rates.drained, rates.bare[fastest], note="the faster of the two"),
    ]
