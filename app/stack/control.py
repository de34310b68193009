"""A stack that another process owns: its status, its addresses, stopping it from outside."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.config import Settings
from app.errors import StackError
from app.stack import environment, leftovers, readiness
from app.stack.layout import Layout, State
from app.stack.lock import OwnerLock, owner_pid
from app.stack.supervisor import STOPPED_STATES, ProcessInfo, Supervisor, SupervisorSilentError, remove_socket

# Longer than the slowest orderly stop: services 45 s, Redis 30 s, PostgreSQL 90 s, and margins.
_STOP_SECONDS = 240.0
_POLL_SECONDS = 0.1
_RESTART_SECONDS = 180.0
"""For each step of a restart: a worker ends its batch, and loads its model."""
_RUNNING = frozenset({"RUNNING"})
SERVERS = frozenset({"postgres", "redis"})
"""Programs that the others need."""


@dataclass(frozen=True)
class Status:
    """What there is of a stack."""

    owner: int | None
    """The process that owns the DATA_DIR, None when no stack runs."""
    state: State
    processes: list[ProcessInfo]
    leftovers: int
    """Processes that run without an owner; the next start stops them."""


def status(settings: Settings) -> Status:
    """Return what there is on DATA_DIR; never raises for a stack that is starting, broken or absent."""
    layout = Layout(environment.absolute(settings).data_dir)
    owner = owner_pid(layout.lock_file)
    state = State.read(layout)
    processes: list[ProcessInfo] = []
    if state.supervisor_socket:
        with contextlib.suppress(SupervisorSilentError):
            processes = Supervisor(state.supervisor_socket).processes()
    return Status(owner, state, processes, 0 if owner else len(leftovers.find(layout.stack_id)))


def none_runs(settings: Settings) -> StackError:
    """Return the error of a command that needs a running stack, and what there is instead."""
    if left := status(settings).leftovers:
        return StackError(f"no stack runs here, but {left} processes of one were left behind: `stack up` recovers, `stack down` stops them")
    return StackError("no stack runs here; start one with `make run`, or set DATABASE_URL")


def stop(settings: Settings, report: Callable[[str], None]) -> bool:
    """Stop the stack on DATA_DIR, whoever owns it, and return whether there was anything to stop.

    Raises:
        StackError: The owner may not be signalled, or did not end in time.
    """
    layout = Layout(environment.absolute(settings).data_dir)
    owner = owner_pid(layout.lock_file)
    if owner is not None:
        _stop_owner(layout, owner)
        return True
    if not layout.root.is_dir():
        return False
    lock = OwnerLock(layout.lock_file)
    lock.acquire()
    try:
        stopped = leftovers.stop_all(layout.stack_id, report) > 0
        state = State.read(layout)
        remove_socket(state)
        state.update(layout, phase="stopped", supervisor_pid=0, supervisor_socket="")
        return stopped
    finally:
        lock.release()


def restart(settings: Settings, names: Sequence[str], report: Callable[[str], None]) -> list[str]:
    """Stop programs of the running stack together, start them again in the stack's order, and return their names once the stack is ready.

    Args:
        settings: Of this process.
        names: Which; none for every one but PostgreSQL and Redis. Workers that do not run are left out.
        report: Is told, in one line each, what happens.

    Raises:
        StackError: No stack runs, it has no program of a name, or it was not ready again in time.
    """
    running = attached(settings)
    supervisor = Supervisor(State.read(Layout(running.data_dir)).supervisor_socket)
    present = {process.name: process.state for process in supervisor.processes()}
    if unknown := sorted(set(names) - present.keys()):
        raise StackError(f"the stack has no program {', '.join(unknown)}; it has {', '.join(present)}")
    wanted = set(names) or present.keys() - SERVERS
    chosen = [name for name, state in present.items() if name in wanted and (name in names or state not in STOPPED_STATES)]
    report("restarting " + ", ".join(chosen))
    for name in reversed(chosen):
        supervisor.stop(name)
    _wait(lambda: _waiting(supervisor, chosen, STOPPED_STATES), "stopped")
    for name in chosen:
        supervisor.start(name)
        if name in SERVERS:
            _wait(lambda name=name: _waiting(supervisor, [name], _RUNNING), "running")  # type: ignore[misc]
    _wait(lambda: _waiting(supervisor, chosen, _RUNNING), "running")
    _wait(lambda: readiness.problem(running), "ready")
    return chosen


def _waiting(supervisor: Supervisor, names: Sequence[str], states: frozenset[str]) -> str | None:
    """Return which of the programs are in none of the states; None when all are in one."""
    left = [process.name for process in supervisor.processes() if process.name in names and process.state not in states]
    return ", ".join(left) or None


def _wait(problem: Callable[[], str | None], what: str) -> None:
    deadline = time.monotonic() + _RESTART_SECONDS
    while (reason := problem()) is not None:
        if time.monotonic() > deadline:
            raise StackError(f"not {what} after {_RESTART_SECONDS:.0f} s: {reason}; see `stack status` and the logs")
        time.sleep(_POLL_SECONDS)


def _stop_owner(layout: Layout, owner: int) -> None:
    try:
        os.kill(owner, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        raise StackError(f"the stack belongs to another user's process {owner}; stop it as that user") from None
    deadline = time.monotonic() + _STOP_SECONDS
    while owner_pid(layout.lock_file) == owner:
        if time.monotonic() > deadline:
            raise StackError(f"process {owner} did not stop the stack in {_STOP_SECONDS:.0f} s; see {layout.logs}")
        time.sleep(_POLL_SECONDS)


def attach(settings: Settings) -> Settings | None:
    """Return the settings with the addresses of the stack that runs on DATA_DIR, or None when none is ready."""
    absolute = environment.absolute(settings)
    layout = Layout(absolute.data_dir)
    state = State.read(layout)
    owner = owner_pid(layout.lock_file)
    if owner is None or owner != state.owner_pid or state.phase != "ready":
        return None
    return environment.with_servers(absolute.model_copy(update={"host": state.host, "port": state.port}), state)


def attached(settings: Settings) -> Settings:
    """Return the settings with the addresses of the stack that runs on DATA_DIR.

    Raises:
        StackError: None does.
    """
    running = attach(settings)
    if running is None:
        raise none_runs(settings)
    return running
