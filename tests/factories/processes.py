"""Processes in groups of their own, each with the face of a Docker container, so that pytest-celery can run without Docker."""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from app.config import Settings
from app.stack.layout import PROJECT_ROOT
from app.stack.os_user import OsUser

_POLL_SECONDS = 0.02
_STOP_SECONDS = 20.0

_LIVE: set["LocalProcess"] = set()


class LocalProcess:
    """One program, restarted as often as wanted, whose whole group a kill reaches, as `docker kill` reaches a container.

    Args:
        name: For people, and the name of its log.
        command: The program and its arguments.
        folder: Where its log goes.
        environment: Added to this process's environment, from which every setting is taken away first.
        user: Who runs it, None for this process's user.

    Attributes:
        attrs: What Docker would say of networks and ports: nothing.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str], user: OsUser | None = None) -> None:
        self.name = name
        self.attrs: dict[str, Any] = {"NetworkSettings": {"Networks": {}, "Ports": {}}, "Config": {"Env": []}}
        self._command = list(command)
        self._log = folder / f"{name}.log"
        self._environment = dict(environment)
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its log begins anew, because an old line must not pass for a new one."""
        settings = {name.upper() for name in Settings.model_fields}
        inherited = {name: value for name, value in os.environ.items() if name not in settings}
        account: dict[str, Any] = {"user": self._user.uid, "group": self._user.gid, "extra_groups": []} if self._user else {}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**inherited, **self._environment},
                cwd="/" if self._user else PROJECT_ROOT,
                start_new_session=True,
                **account,
            )
        _LIVE.add(self)

    @property
    def pid(self) -> int:
        """The leader's process id, which is the group's too; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def id(self) -> str:
        """What stands for a container's id."""
        return f"{self.name}-{self.pid}"

    @property
    def status(self) -> str:
        """'running' or 'exited', in Docker's words."""
        return "running" if self._process is not None and self._process.poll() is None else "exited"

    @property
    def is_running(self) -> bool:
        """Whether the leader lives."""
        return self.status == "running"

    def reload(self) -> None:
        """Do nothing: the status is always read anew."""

    def logs(self) -> bytes:
        """Return what it wrote since its last start."""
        return self._log.read_bytes() if self._log.exists() else b""

    def kill(self, signal: str | int | None = None) -> None:
        """Send a signal to the whole group, SIGKILL unless told otherwise; wait for the end of what it ends at once."""
        number = _number(signal)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
        if number == 9:
            self._wait(_STOP_SECONDS)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the leader alone, as an operator's `kill` does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self, timeout: float = _STOP_SECONDS, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask the leader to end, and kill the group if it does not within the time."""
        if self.is_running:
            self.send(signal.SIGCONT)
            self.send(number)
            self._wait(timeout)
        if self._process is not None:
            self.kill(signal.SIGKILL)
        _LIVE.discard(self)

    def restart(self, timeout: float = _STOP_SECONDS) -> None:
        """Stop it and start it again."""
        self.stop(timeout)
        self.start()

    def remove(self, *_: Any, **__: Any) -> None:
        """Stop it for good."""
        self.stop()

    def exec_run(self, *_: Any, **__: Any) -> tuple[int, bytes]:
        """Refuse: there is no container to run anything in."""
        return 126, b"this node is a process of this machine"

    def children(self) -> list[psutil.Process]:
        """Return its live descendants, oldest first."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            return []
        return [child for child in found if is_alive(child)]

    def _wait(self, seconds: float) -> None:
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)


def _number(name: str | int | None) -> int:
    if name is None:
        return signal.SIGKILL
    return signal.Signals[name] if isinstance(name, str) else name


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def stop_all() -> None:
    """Kill, group by group, whatever was started here and is still there."""
    for process in list(_LIVE):
        process.kill()
        _LIVE.discard(process)


atexit.register(stop_all)


def wait_until(condition: Callable[[], object], seconds: float, what: str | Callable[[], str], every: float = _POLL_SECONDS) -> float:
    """Return how many seconds it took until the condition held.

    Args:
        condition: Holds when it returns something true.
        seconds: How long to wait.
        what: What was waited for, or a function that tells what is seen instead.
        every: Seconds between two looks.

    Raises:
        AssertionError: It never held; the message says what was waited for.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(every)
    return time.monotonic() - started


def python(*arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", *arguments]
