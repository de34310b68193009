"""The embedded stack as one object: start everything, watch it, stop everything."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.config import ALL_SECRETS, Settings
from app.errors import StackError
from app.stack import environment, leftovers, ports, prometheus, readiness, redis_server
from app.stack.layout import Layout, State, write_private
from app.stack.lock import OwnerLock
from app.stack.postgres import Postgres
from app.stack.programs import Program, postgres_program, redis_program, service_programs
from app.stack.supervisor import (
    STOPPED_STATES,
    ProcessInfo,
    Supervisor,
    SupervisorSilentError,
    configuration,
    log_tail,
    remove_socket,
    spawn,
)
from app.stack.worker_scaling import WorkerScaling

_POLL_SECONDS = 0.2
_WATCH_SECONDS = 1.0
_SUPERVISOR_SECONDS = 30.0
# PostgreSQL replays its log after a crash before it takes connections.
_SERVER_SECONDS = 180.0
# Every process loads torch and the model, on two slow cores perhaps.
_SERVICES_SECONDS = 300.0
_ENDS_BEFORE_GIVING_UP = 3
_STOP_MARGIN_SECONDS = 15.0

Report = Callable[[str], None]
Prepare = Callable[[Settings, str | None], None]
Services = Callable[[Settings, Layout], Sequence[Program]]
Problem = Callable[[Settings], str | None]


@dataclass(frozen=True)
class _Server:
    """An embedded server: how it runs, and why it does not answer yet (None when it does)."""

    program: Program
    problem: Callable[[], str | None]


class Stack:
    """One DATA_DIR and the processes that serve it.

    Args:
        settings: Where it keeps things and listens. DATABASE_URL, REDIS_URL or BROKER_URL, when chosen,
            name an external server, and the embedded one is not started.
        report: Is told, in one line each, what happens.
        prepare: Brings the database to the newest schema; by default bootstrap, migrations and first key.
        services: The table of programs beside the servers.
        problem: Returns what is not ready yet, or None; by default asks /health.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        report: Report = lambda _: None,
        prepare: Prepare | None = None,
        services: Services = service_programs,
        problem: Problem = readiness.problem,
    ) -> None:
        self._chosen = environment.absolute(settings)
        self.settings = self._chosen
        """The settings; once the stack is up, with the addresses of its servers."""
        self.layout = Layout(self._chosen.data_dir)
        self._report = report
        self._prepare = prepare or _prepare_schema
        self._service_table = services
        self._problem = problem
        self._lock = OwnerLock(self.layout.lock_file)
        self._state = State()
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor: Supervisor | None = None
        self._services: Sequence[Program] = ()
        self._scaling: WorkerScaling | None = None
        self._ends: dict[str, set[int]] = {}

    def up(self) -> None:
        """Start everything and return when it can be used. On any failure everything is stopped again.

        Raises:
            StackError: Something did not come up; the message names it and the end of its log.
            ConfigurationError: A secret is missing or empty.
        """
        for name in ALL_SECRETS:
            self._chosen.secret(name)
        if self._chosen.broker_is_rabbitmq:
            _ = self._chosen.broker_dsn  # Its secret is missing: said now, not by a worker that ends three times.
        self.layout.create()
        self._lock.acquire()
        try:
            self._recover()
            self._start()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Stop every process this stack started, and no other; without effect when it is not the owner."""
        if not self._lock.is_held:
            return
        if self._supervisor is not None:
            self._state = self._state.update(self.layout, phase="stopping")
            try:
                self._stop_in_order(self._supervisor)
            except StackError as error:
                self._report(f"{error.message}; stopping the processes without it")
        self._reap()
        leftovers.stop_all(self.layout.stack_id, self._report)
        self._reap()
        remove_socket(self._state)
        self._state = self._state.update(self.layout, phase="stopped", supervisor_pid=0, supervisor_socket="")
        self._supervisor = self._process = self._scaling = None
        self.settings = self._chosen
        self._lock.release()

    def watch(self) -> None:
        """Block for as long as the stack is well, and run as many workers as the backlog needs.

        Raises:
            StackError: supervisord died or does not answer any more, or a program was given up.
        """
        answered_at = time.monotonic()
        while True:
            time.sleep(_WATCH_SECONDS)
            self._require_supervisor_process()
            try:
                processes = self.processes()
                self._require_no_fatal(processes)
                if self._scaling is not None:
                    self._scaling.step(processes)
                answered_at = time.monotonic()
            except SupervisorSilentError:
                if time.monotonic() - answered_at > _SUPERVISOR_SECONDS:
                    raise

    def processes(self) -> list[ProcessInfo]:
        """Return every program of the running stack in the order of start; empty when it does not run.

        Raises:
            SupervisorSilentError: supervisord does not answer.
        """
        return [] if self._supervisor is None else self._supervisor.processes()

    def _recover(self) -> None:
        """Clear what a killed owner left behind: its processes and its socket."""
        self._state = State.read(self.layout)
        leftovers.stop_all(self.layout.stack_id, self._report)
        remove_socket(self._state)

    def _start(self) -> None:
        self._choose_ports()
        servers, superuser_dsn = self._servers()
        self._services = self._service_table(self.settings, self.layout)
        supervisor = self._start_supervisor([*(server.program for server in servers), *self._services])
        for server in servers:
            supervisor.start(server.program.name)
        for server in servers:
            self._wait_for(server.program.name, server.problem, _SERVER_SECONDS)
        self._report("the servers are up; preparing the database")
        self._prepare(self.settings, superuser_dsn)
        first = [program.name for program in self._services if program.starts_with_stack]
        self._report("starting " + ", ".join(first))
        for name in first:
            supervisor.start(name)
        self._wait_for("the stack", lambda: self._problem(self.settings), _SERVICES_SECONDS)
        self._scaling = WorkerScaling(self.settings, supervisor, self._report)
        self._state = self._state.update(self.layout, phase="ready", owner_pid=os.getpid())

    def _choose_ports(self) -> None:
        chosen = self._chosen
        ports.require_free("PORT", chosen.host, chosen.port)
        taken = {chosen.port}
        side: dict[str, int] = {}
        for name in ("flower_port", "mcp_port"):
            port: int = getattr(chosen, name)
            if environment.is_given(chosen, name):
                ports.require_free(name.upper(), "127.0.0.1", port)
            else:
                port = ports.choose(port, frozenset(taken))
            taken.add(port)
            side[name] = port
        side["metrics_port"] = self._metrics_port(frozenset(taken))
        taken |= set(range(side["metrics_port"], side["metrics_port"] + 1 + chosen.worker_bounds[1]))
        postgres = ports.choose(self._state.postgres_port, frozenset(taken))
        taken.add(postgres)
        redis = ports.choose(self._state.redis_port, frozenset(taken))
        state = State(
            phase="starting",
            host=chosen.host,
            port=chosen.port,
            flower_port=side["flower_port"],
            mcp_port=side["mcp_port"],
            metrics_port=side["metrics_port"],
            postgres_port=postgres,
            redis_port=redis,
        )
        self.settings = environment.with_servers(chosen, state)
        prometheus.write(self.settings, self.layout)
        self._state = state.write(self.layout)

    def _metrics_port(self, taken: frozenset[int]) -> int:
        """Return the first of the ports of dispatcher and workers; 0 where they shall show no metrics."""
        first, count = self._chosen.metrics_port, 1 + self._chosen.worker_bounds[1]
        if not environment.is_given(self._chosen, "metrics_port"):
            return ports.choose_block(self._state.metrics_port, count, taken)
        for port in range(first, first + count) if first else ():
            ports.require_free("METRICS_PORT", self._chosen.metrics_host, port)
        return first

    def _servers(self) -> tuple[list[_Server], str | None]:
        """Return the embedded servers, configured, and the URL of PostgreSQL's superuser if it is embedded."""
        servers: list[_Server] = []
        superuser_dsn = None
        if not environment.is_given(self._chosen, "database_url"):
            postgres, port = Postgres(self.layout, self._report), self._state.postgres_port
            user = postgres.prepare(port, self._chosen.postgres_memory_mb)
            superuser_dsn = postgres.superuser_dsn(port)
            program = postgres_program(postgres.command, user.name if user else None)
            servers.append(_Server(program, lambda: postgres.problem(port)))
        if environment.needs_embedded_redis(self._chosen):
            servers.append(self._redis_server(self._state.redis_port))
        return servers, superuser_dsn

    def _redis_server(self, port: int) -> _Server:
        binary = redis_server.newest_binary()
        if binary.security_note:
            self._report(f"{binary.security_note}; a newer redis-server or valkey-server on PATH is used when there is one")
        password = self._chosen.secret("redis_password")
        file = redis_server.write_configuration(self.layout, port, password, binary, self._chosen.redis_memory_mb)
        return _Server(redis_program([str(binary.path), str(file)]), lambda: redis_server.problem(port, password))

    def _start_supervisor(self, programs: Sequence[Program]) -> Supervisor:
        # A Unix socket's path may have about 100 bytes, which DATA_DIR alone can exceed.
        socket_path = str(Path(tempfile.mkdtemp(prefix="nexus-")) / "supervisor.sock")
        self._state = self._state.update(self.layout, supervisor_socket=socket_path)
        write_private(self.layout.supervisor_config, configuration(self.layout, socket_path, programs))
        self._process = spawn(self.layout, environment.for_programs(self.settings, self.layout))
        self._state = self._state.update(self.layout, supervisor_pid=self._process.pid)
        self._supervisor = Supervisor(socket_path)
        deadline = time.monotonic() + _SUPERVISOR_SECONDS
        while True:
            self._require_supervisor_process()
            try:
                self._supervisor.processes()
            except SupervisorSilentError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
            else:
                return self._supervisor

    def _wait_for(self, what: str, problem: Callable[[], str | None], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (reason := problem()) is not None:
            self._require_supervisor_process()
            processes = self.processes()
            self._require_no_fatal(processes)
            self._require_no_crash_loop(processes)
            if time.monotonic() > deadline:
                named = what if what in {process.name for process in processes} else "supervisord"
                log = self.layout.log_file(named)
                raise StackError(f"{what} did not come up in {seconds:.0f} s: {reason}; {log} ends: {log_tail(log)}")
            time.sleep(_POLL_SECONDS)

    def _require_supervisor_process(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            log = self.layout.logs / "supervisord.out.log"
            raise StackError(f"the process supervisor died (status {self._process.returncode}); {log} ends: {log_tail(log)}")

    def _require_no_fatal(self, processes: Sequence[ProcessInfo]) -> None:
        for process in processes:
            if process.state == "FATAL":
                raise self._gave_up(process, "cannot be kept running")

    def _require_no_crash_loop(self, processes: Sequence[ProcessInfo]) -> None:
        """Raise while starting, long before supervisord gives up: nothing will change by itself."""
        for process in processes:
            if process.stopped_at:
                self._ends.setdefault(process.name, set()).add(process.stopped_at)
            if len(self._ends.get(process.name, ())) >= _ENDS_BEFORE_GIVING_UP:
                raise self._gave_up(process, f"ended {_ENDS_BEFORE_GIVING_UP} times while starting")

    def _gave_up(self, process: ProcessInfo, what: str) -> StackError:
        log = self.layout.log_file(process.name)
        return StackError(f"{process.name} {what}; {log} ends: {log_tail(log)}")

    def _stop_in_order(self, supervisor: Supervisor) -> None:
        """Stop the services together, then the servers one by one, then supervisord."""
        names = {program.name for program in self._services}
        for program in self._services:
            supervisor.stop(program.name)
        patience = max((program.stop_wait_seconds for program in self._services), default=0) + _STOP_MARGIN_SECONDS
        deadline = time.monotonic() + patience
        while any(p.name in names and p.state not in STOPPED_STATES for p in supervisor.processes()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        supervisor.shut_down()
        # supervisord has its own patience with each server, kills what exceeds it, and then ends.
        deadline = time.monotonic() + 120 + _STOP_MARGIN_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.poll()


def _prepare_schema(settings: Settings, superuser_dsn: str | None) -> None:
    # Imported here because SQLAlchemy and Alembic take longer to load than `stack status` takes to run.
    from app.stack.schema import prepare

    prepare(settings, superuser_dsn)
