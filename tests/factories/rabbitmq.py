"""A real RabbitMQ of its own: free ports, a temporary folder, every process known by its id."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psutil
import pytest

from app.stack import ports

_START_SECONDS = 90.0
_STOP_SECONDS = 30.0
_SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/rabbitmq/bin"
# Debian's command of that name changes to a user who could not read a test's folder; this is what it runs.
_DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")


def why_not_installed() -> str | None:
    """Return what is missing for a broker on this machine, None if nothing is."""
    missing = [name for name in ("rabbitmq-server", "rabbitmqctl", "epmd") if shutil.which(name, path=_SEARCH_PATH) is None]
    return f"not installed: {', '.join(missing)} (apt-get install rabbitmq-server)" if missing else None


def require(*, always: bool = False) -> None:
    """Go on if a broker can run here; else skip the test, or fail it when `always` or NEXUS_REQUIRE_RABBITMQ=1 says that it must run."""
    missing = why_not_installed()
    if missing and (always or os.environ.get("NEXUS_REQUIRE_RABBITMQ") == "1"):
        pytest.fail(f"RabbitMQ is required: {missing}")
    if missing:
        pytest.skip(missing)


class RabbitServer:
    """A broker with one user, `nexus`, and no plugin. It starts in about six seconds, all of them computing.

    Its data outlives `stop`, `kill` and `restart`, and goes with `close`. As a context manager it is started and closed.

    Args:
        password: Of the one user; made up if not given.
        cookie: What nodes of one cluster have in common; made up if not given.
        epmd_port: Where the nodes' directory listens if another node has started it; else this one starts its own.

    Attributes:
        name: Of the node.
        user: The one user, who may do everything.
        password: The user's password.
        password_file: A file that holds it.
        address: Where it listens for AMQP, the same after every start.
        url: The broker's URL without credentials.
        url_with_credentials: The same with user and password.
        log: What it wrote, over all starts.
        cookie: What nodes of one cluster have in common.
        epmd_port: Where the nodes' directory listens.
    """

    def __init__(self, password: str | None = None, cookie: str | None = None, epmd_port: int = 0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nexus-rabbitmq-"))
        self.user = "nexus"
        self.password = password or secrets.token_urlsafe(18)
        self.password_file = self.folder / "rabbitmq_password.txt"
        self.password_file.write_text(self.password)
        self.log = self.folder / "broker.log"
        port = ports.choose(0)
        self.address = ("127.0.0.1", port)
        self.name = f"nexus{port}@localhost"
        self.url = f"amqp://127.0.0.1:{port}//"
        self.url_with_credentials = f"amqp://{self.user}:{quote(self.password, safe='')}@127.0.0.1:{port}//"
        self.cookie = cookie or secrets.token_hex(16)
        self.epmd_port = epmd_port or ports.choose(0, frozenset({port}))
        self._dist_port = ports.choose(0, frozenset({port, self.epmd_port}))
        self._epmd: subprocess.Popen[bytes] | None = None
        self._broker: subprocess.Popen[bytes] | None = None
        self._environment = self._write_configuration()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Start it and return once it takes connections.

        Raises:
            AssertionError: It did not start; the message ends with its log's last lines.
        """
        if self._epmd is None and not _listens(("127.0.0.1", self.epmd_port)):
            command = [_program("epmd"), "-port", str(self.epmd_port), "-address", "127.0.0.1"]
            self._epmd = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            _wait_for_port(("127.0.0.1", self.epmd_port), self._epmd)
        with self.log.open("ab") as log:
            self._broker = subprocess.Popen(
                [_program("rabbitmq-server")],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if not _wait_for_port(self.address, self._broker):
            self.kill()
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise AssertionError("RabbitMQ did not start:\n" + "\n".join(lines[-20:]))

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._broker is not None and self._broker.poll() is None

    def stop(self) -> None:
        """Stop it in order; kill it if that takes too long. Its data stays."""
        if self._broker is not None:
            self._broker.terminate()
            try:
                self._broker.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._broker = None

    def kill(self) -> None:
        """Kill it and every process it started, as a loss of power would. What it had on disk stays."""
        if self._broker is None:
            return
        family = _family(self._broker.pid)
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._broker.wait(_STOP_SECONDS)
        psutil.wait_procs(family, timeout=_STOP_SECONDS)
        self._broker = None

    def restart(self) -> None:
        """Stop it in order and start it again on the same data and port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End every process that was started and remove the folder."""
        try:
            self.stop()
        finally:
            if self._epmd is not None:
                self._epmd.kill()
                self._epmd.wait(_STOP_SECONDS)
                self._epmd = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """Return the broker and all that it started, and epmd."""
        started = [process for process in (self._broker, self._epmd) if process is not None]
        return [each for process in started for each in _family(process.pid)]

    def control(self, *arguments: str) -> list[list[str]]:
        """Run rabbitmqctl and return its lines, each split at tabs; it takes a second or two.

        Raises:
            CalledProcessError: It refused.
        """
        command = [_program("rabbitmqctl"), "--quiet", "--silent", "--node", self.name, *arguments]
        done = subprocess.run(command, env=self._environment, check=True, capture_output=True, text=True, timeout=_START_SECONDS)
        return [line.split("\t") for line in done.stdout.splitlines() if line]

    def join(self, other: "RabbitServer") -> None:
        """Become a node of the cluster that another node is in; what this node held is gone."""
        for arguments in (("stop_app",), ("join_cluster", other.name), ("start_app",)):
            self.control(*arguments)

    def _write_configuration(self) -> dict[str, str]:
        """Write what it reads at its start and return the environment that leads it there, away from any other broker's files."""
        configuration = self.folder / "rabbitmq.conf"
        configuration.write_text(
            f"listeners.tcp.1 = {self.address[0]}:{self.address[1]}\n"
            f"loopback_users = none\ndefault_user = {self.user}\ndefault_pass = {self.password}\n"
        )
        plugins = self.folder / "enabled_plugins"
        plugins.write_text("[].\n")
        for name in ("home", "data", "log"):
            (self.folder / name).mkdir()
        cookie = self.folder / "home" / ".erlang.cookie"
        cookie.write_text(self.cookie)
        cookie.chmod(0o400)
        return {
            "PATH": _SEARCH_PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONFIG_FILE": str(configuration),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(self.folder / "schema"),
            "RABBITMQ_LOGS": "-",
            # Its script then becomes the broker instead of waiting for it as a shell, so one process id is the broker's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


class RabbitCluster:
    """Three nodes of one cluster, on which a quorum queue has a leader and two followers.

    Attributes:
        nodes: The nodes, in the order in which clients try them.
    """

    def __init__(self) -> None:
        first = RabbitServer()
        others = [RabbitServer(first.password, first.cookie, first.epmd_port) for _ in range(2)]
        self.nodes = (first, *others)

    def start(self) -> None:
        """Start every node that is down and return once all of them take connections and are one cluster."""
        first, *others = self.nodes
        for node in self.nodes:
            if not node.is_running:
                node.start()
        for node in others:
            if self.size(node) == 1:
                node.join(first)

    @staticmethod
    def size(node: RabbitServer) -> int:
        """Return how many nodes the node's cluster has, running or not."""
        ((count,),) = node.control("eval", "length(rabbit_nodes:all()).")
        return int(count)

    def leader(self, queue: str) -> RabbitServer:
        """Return the node that leads a quorum queue."""
        told = next(node for node in self.nodes if node.is_running).control("list_queues", "name", "leader")
        leader = next(name for each, name in told if each == queue)
        return next(node for node in self.nodes if node.name == leader)

    def kill(self) -> None:
        """Kill every node."""
        for node in self.nodes:
            node.kill()

    def stop(self) -> None:
        """Stop every node in order."""
        for node in self.nodes:
            node.stop()

    def close(self) -> None:
        """End every process and remove every folder; the first node, which has the nodes' directory, goes last."""
        for node in reversed(self.nodes):
            node.close()


def _program(name: str) -> str:
    direct = _DEBIAN_SCRIPTS / name
    return str(direct) if direct.exists() else shutil.which(name, path=_SEARCH_PATH) or name


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def _wait_for_port(address: tuple[str, int], process: "subprocess.Popen[bytes]") -> bool:
    """Return whether something listens there before the process ends or time is up."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if _listens(address):
            return True
        time.sleep(0.05)
    return False
