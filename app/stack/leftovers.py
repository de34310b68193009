"""Processes of a stack whose owner is gone: found by a mark in their environment, stopped in order."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

STACK_VARIABLE = "NEXUS_STACK"
"""Environment variable with the id of the DATA_DIR; every process of the stack inherits it."""
PROGRAM_VARIABLE = "NEXUS_PROGRAM"
"""Environment variable with the name of the program a process belongs to."""
SUPERVISOR = "supervisord"

_POLL_SECONDS = 0.1
# supervisord itself stops every program with its own patience; postgres is the slowest.
_SUPERVISOR_SECONDS = 120.0
_SERVICE_SECONDS = 45.0
_POSTGRES_SECONDS = 60.0
_KILL_SECONDS = 10.0


@dataclass(frozen=True)
class Leftover:
    """A live process that carries the mark."""

    process: psutil.Process
    program: str


def find(stack_id: str) -> list[Leftover]:
    """Return the live processes that carry the mark of one DATA_DIR, oldest first.

    Processes whose environment this user may not read cannot be its own and are passed over. So are
    this process and its ancestors, which may carry the mark when a program of the stack started them.
    """
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if environment.get(STACK_VARIABLE) == stack_id:
            found.append(Leftover(process, environment.get(PROGRAM_VARIABLE, "")))
    return sorted(found, key=lambda leftover: _age_key(leftover.process))


def stop_all(stack_id: str, report: Callable[[str], None] = lambda _: None) -> int:
    """Stop everything that carries the mark and return how many processes there were.

    supervisord goes first, because it would start the others again and because it stops them in their
    right order by itself. What remains is asked, then killed: services, then Redis, then PostgreSQL,
    which is asked for a fast and then an immediate shutdown before anything harder.
    """
    found = find(stack_id)
    if not found:
        return 0
    report(f"stopping {len(found)} processes that an earlier run left behind")
    _stop(_roots(find(stack_id), {SUPERVISOR}), [(signal.SIGTERM, _SUPERVISOR_SECONDS), (signal.SIGKILL, _KILL_SECONDS)])
    servers = {"redis", "postgres"}
    services = {leftover.program for leftover in find(stack_id)} - servers
    _stop(_roots(find(stack_id), services), [(signal.SIGTERM, _SERVICE_SECONDS)])
    # Children that outlived their parent, and whatever did not listen.
    _stop([leftover.process for leftover in find(stack_id) if leftover.program in services], [(signal.SIGKILL, _KILL_SECONDS)])
    _stop(_roots(find(stack_id), {"redis"}), [(signal.SIGTERM, _SERVICE_SECONDS), (signal.SIGKILL, _KILL_SECONDS)])
    postgres = [(signal.SIGINT, _POSTGRES_SECONDS), (signal.SIGQUIT, _KILL_SECONDS), (signal.SIGKILL, _KILL_SECONDS)]
    _stop(_roots(find(stack_id), {"postgres"}), postgres)
    return len(found)


def is_alive(process: psutil.Process) -> bool:
    """Return whether the process still runs; a zombie that nobody has waited for does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _roots(leftovers: Iterable[Leftover], programs: set[str]) -> list[psutil.Process]:
    """Return the processes of these programs without those whose parent is of the same program: it stops them itself."""
    chosen = {leftover.process.pid: leftover for leftover in leftovers if leftover.program in programs}
    return [leftover.process for leftover in chosen.values() if not _parent_is_of(leftover, chosen)]


def _parent_is_of(leftover: Leftover, chosen: dict[int, Leftover]) -> bool:
    try:
        parent = chosen.get(leftover.process.ppid())
    except psutil.Error:
        return False
    return parent is not None and parent.program == leftover.program


def _stop(processes: list[psutil.Process], steps: list[tuple[signal.Signals, float]]) -> None:
    for number, seconds in steps:
        processes = [process for process in processes if is_alive(process)]
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.Error:
                continue
        deadline = time.monotonic() + seconds
        while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _age_key(process: psutil.Process) -> float:
    try:
        return float(process.create_time())
    except psutil.Error:
        return 0.0
