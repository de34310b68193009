"""supervisord: its configuration, its process, and the calls it answers."""

import http.client
import os
import shlex
import shutil
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import StackError
from app.stack.layout import PROJECT_ROOT, Layout, State
from app.stack.leftovers import PROGRAM_VARIABLE, SUPERVISOR
from app.stack.programs import Program

STOPPED_STATES = frozenset({"STOPPED", "EXITED", "FATAL", "UNKNOWN"})
"""States in which supervisord has no process of the program and will not start one."""

_LOG_BYTES = "10MB"
_LOG_BACKUPS = 3
_CALL_SECONDS = 10.0
_ALREADY_STARTED = 60
"""What supervisord answers to the start of what runs. Source: supervisor.xmlrpc.Faults."""

_HEAD = """\
; Written at each start of the stack.
[unix_http_server]
file={socket}
chmod=0700

[supervisord]
logfile={log}
logfile_maxbytes={log_bytes}
logfile_backups={log_backups}
pidfile={pid_file}
childlogdir={logs}
nodaemon=true
silent=true
identifier=nexus
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
_PROGRAM = """
[program:{name}]
command={command}
directory={directory}
environment={environment}
priority={priority}
autostart=false
autorestart=true
startsecs={start_seconds}
startretries={start_retries}
stopsignal={stop_signal}
stopwaitsecs={stop_wait_seconds}
stopasgroup=false
killasgroup={kill_group}
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes={log_bytes}
stdout_logfile_backups={log_backups}
{user}"""


@dataclass(frozen=True)
class ProcessInfo:
    """What supervisord knows of one program."""

    name: str
    state: str
    pid: int
    """0 when there is no process."""
    uptime_seconds: float
    stopped_at: int
    """Unix time in seconds at which it last ended, 0 for never."""


def configuration(layout: Layout, socket_path: str, programs: Sequence[Program]) -> str:
    """Return the text of supervisord's configuration; the programs start and stop in their order, the last first."""
    head = _HEAD.format(
        socket=socket_path,
        log=_escape(layout.logs / "supervisord.log"),
        log_bytes=_LOG_BYTES,
        log_backups=_LOG_BACKUPS,
        pid_file=_escape(layout.root / "supervisord.pid"),
        logs=_escape(layout.logs),
        # Said aloud, or supervisord warns at each start that nobody chose.
        user="user=root\n" if os.geteuid() == 0 else "",
    )
    return head + "".join(_section(layout, program, priority) for priority, program in enumerate(programs, start=1))


def _section(layout: Layout, program: Program, priority: int) -> str:
    environment = {PROGRAM_VARIABLE: program.name, **program.environment}
    return _PROGRAM.format(
        name=program.name,
        command=_escape(shlex.join(program.command)),
        directory=_escape(PROJECT_ROOT),
        environment=_escape(",".join(f'{name}="{value}"' for name, value in environment.items())),
        priority=priority,
        start_seconds=program.start_seconds,
        start_retries=program.start_retries,
        stop_signal=program.stop_signal,
        stop_wait_seconds=program.stop_wait_seconds,
        kill_group=str(program.kill_group).lower(),
        log=_escape(layout.log_file(program.name)),
        log_bytes=_LOG_BYTES,
        log_backups=_LOG_BACKUPS,
        user=f"user={program.user}\n" if program.user else "",
    )


def _escape(value: object) -> str:
    return str(value).replace("%", "%%")


def spawn(layout: Layout, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start supervisord in a session of its own, so that a Ctrl-C in the terminal reaches only its owner."""
    with (layout.logs / "supervisord.out.log").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(layout.supervisor_config)],
            cwd=PROJECT_ROOT,
            env={**environment, PROGRAM_VARIABLE: SUPERVISOR},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class SupervisorSilentError(StackError):
    """The process supervisor does not answer; it may be busy, stopped or gone."""


class Supervisor:
    """Calls to a running supervisord.

    Args:
        socket_path: Its Unix socket.
    """

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            # A connection a call: on a Unix socket it costs nothing, and none is ever found broken.
            with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_UnixTransport(self._socket_path)) as proxy:
                return getattr(proxy, f"supervisor.{method}")(*arguments)
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise SupervisorSilentError(f"the process supervisor does not answer: {error}") from error

    def processes(self) -> list[ProcessInfo]:
        """Return every program, in the order in which they start.

        Raises:
            SupervisorSilentError: supervisord does not answer.
        """
        rows = self._call("getAllProcessInfo")
        return [
            ProcessInfo(
                name=row["name"],
                state=row["statename"],
                pid=row["pid"],
                uptime_seconds=max(0, row["now"] - row["start"]) if row["pid"] else 0,
                stopped_at=row["stop"],
            )
            for row in rows
        ]

    def start(self, name: str) -> None:
        """Start a program and return at once; without effect when it runs already.

        Raises:
            StackError: supervisord does not answer, or the command cannot be run.
        """
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as error:
            if error.faultCode == _ALREADY_STARTED:  # Somebody else was first: the autoscaler, or a command.
                return
            raise StackError(f"{name} could not be started: {error.faultString}") from error

    def stop(self, name: str) -> None:
        """Ask a program to stop and return at once; without effect when it does not run."""
        try:
            self._call("stopProcess", name, False)
        except xmlrpc.client.Fault:
            return

    def shut_down(self) -> None:
        """Ask supervisord to stop what still runs, the last started first, and to end."""
        try:
            self._call("shutdown")
        except xmlrpc.client.Fault:
            return


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, with a time limit that the library's own transport lacks."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> _UnixConnection:
        connection = _UnixConnection(self._path)
        # Where the base class finds it to close it.
        self._connection = host, connection
        return connection


def remove_socket(state: State) -> None:
    """Remove the temporary folder of supervisord's socket; without effect when there is none."""
    folder = Path(state.supervisor_socket).parent
    if state.supervisor_socket and folder.name.startswith("nexus-"):
        shutil.rmtree(folder, ignore_errors=True)


def log_tail(path: Path, lines: int = 3, characters: int = 600) -> str:
    """Return the last lines of a log on one line, or a note that it is empty."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    last = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
    return " | ".join(last)[-characters:] or "(empty log)"
