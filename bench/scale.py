"""How the drain grows with the number of worker processes, each with one thread of its own."""

from collections.abc import Callable, Sequence

from bench.drain import drain_rate
from bench.figures import Figure, over_rounds, ratios
from bench.own_stack import OwnStack

WORKERS = (1, 2, 4)

Report = Callable[[str], None]


def measure(stack: OwnStack, texts: Sequence[str], rounds: int, report: Report) -> list[Figure]:
    """Return the drain rate by number of workers, and what each number brings over one.

    Args:
        stack: Idle, with as many worker programs as the greatest of WORKERS.
        texts: What is stored and embedded each time.
        rounds: How often each number runs.
        report: Is told of each round.
    """
    rates: dict[int, list[float]] = {count: [] for count in WORKERS}
    for number in range(1, rounds + 1):
        for count in WORKERS:
            with stack.workers_limited(count):
                rates[count].append(drain_rate(stack, texts))
        report(f"round {number}: " + ", ".join(f"{count} workers {found[-1]:.0f}/s" for count, found in rates.items()))
    return [
        *(over_rounds(f"{count} worker{'s' if count > 1 else ''}", found, "episodes/s") for count, found in rates.items()),
        *(ratios(f"{count} workers to one", rates[count], rates[1]) for count in WORKERS[1:]),
    ]
