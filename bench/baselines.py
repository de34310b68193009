"""What the stack is compared with: bare encoding, and a loop that encodes and writes and does nothing else."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from app.errors import StackError
from app.stack.layout import PROJECT_ROOT


class Baseline:
    """Processes that share one job's texts evenly; their models are loaded once and stay.

    Args:
        processes: How many.
        threads: Of torch, in each.
        precision: fp32 or bf16.
        url: Superuser's URL of the baseline's database.

    Attributes:
        name: For the report.
        url: As given.
    """

    def __init__(self, processes: int, threads: int, precision: str, url: str) -> None:
        self.name = f"{processes} process{'es' if processes > 1 else ''} x {threads} thread{'s' if threads > 1 else ''}"
        self.url = url
        self._setup = {"threads": threads, "precision": precision, "url": url}
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self._processes = [self._start() for _ in range(processes)]

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "bench.baseline_process"],
            cwd=PROJECT_ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        for process in self._processes:
            _send(process, self._setup)
        for process in self._processes:
            _receive(process)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def rate(self, texts: Sequence[str], *, write: bool) -> float:
        """Return texts a second over one job.

        Args:
            texts: Each process takes every n-th.
            write: Also write each batch into the database.

        Raises:
            StackError: A process died.
        """
        count = len(self._processes)
        started = time.perf_counter()
        for number, process in enumerate(self._processes):
            _send(process, {"write": write, "texts": list(texts[number::count])})
        for process in self._processes:
            _receive(process)
        return len(texts) / (time.perf_counter() - started)


def _send(process: "subprocess.Popen[str]", message: dict[str, Any]) -> None:
    if process.stdin is None:
        raise StackError("a baseline process has no input")
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def _receive(process: "subprocess.Popen[str]") -> None:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise StackError("a baseline process died; run `python -m bench.baseline_process` by hand to see why")
