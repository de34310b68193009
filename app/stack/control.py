"""A stack that another process owns: its status, its addresses, stopping it from outside."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.config import Settings
from app.errors import StackError
from app.stack import environment, leftovers
from app.stack.layout import Layout, State
from app.stack.lock import OwnerLock, owner_pid
from app.stack.supervisor import ProcessInfo, Supervisor, SupervisorSilentError, remove_socket

# Longer than the slowest orderly stop: services 45 s, Redis 30 s, PostgreSQL 90 s, and margins.
_STOP_SECONDS = 240.0
_POLL_SECONDS = 0.1


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
