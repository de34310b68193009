"""pytest-celery's nodes and clusters over processes of this machine instead of Docker containers."""

import socket
from typing import Any

import celery
import psutil
from pytest_celery import CeleryTestBroker, CeleryTestContainer, CeleryTestWorker
from pytest_docker_tools.exceptions import ContainerFailed

from tests.factories.processes import LocalProcess
from tests.faults.servers import Broker


class ProcessContainer(CeleryTestContainer):  # type: ignore[misc]  # pytest-celery has no types
    """A container that is a process: it has a log and signals, and no network or ports of its own.

    Args:
        process: What runs.
    """

    def __init__(self, process: LocalProcess) -> None:
        self._container = process

    @property
    def process(self) -> LocalProcess:
        """The process itself."""
        return self._container

    def ready(self) -> bool:
        """Return once it has said that it is ready.

        Raises:
            ContainerFailed: It has ended instead.
        """
        if self.status == "exited":
            raise ContainerFailed(self, f"{self.name} ended:\n{self.logs()[-2000:]}")
        return bool(self._wait_ready(60))

    def teardown(self) -> None:
        """Leave it running: whoever started it stops it, so that the next case need not load a model."""


class WorkerContainer(ProcessContainer):
    """A Celery worker."""

    @property
    def ready_prompt(self) -> str:
        """What Celery logs once it consumes."""
        return "ready."

    @classmethod
    def version(cls) -> str:
        """Celery's version."""
        return str(celery.__version__)

    @classmethod
    def log_level(cls) -> str:
        """What the workers log at."""
        return "INFO"

    @classmethod
    def worker_name(cls) -> str:
        """The name before the @, less its number."""
        return "worker"

    @classmethod
    def worker_queue(cls) -> str:
        """The queue of most batches."""
        return "embed.bulk"


class WorkerNode(CeleryTestWorker):  # type: ignore[misc]
    """A worker under attack.

    Args:
        process: The worker's parent; its pool child is its grandchild or child.
    """

    def __init__(self, process: LocalProcess) -> None:
        super().__init__(WorkerContainer(process), None)

    @property
    def process(self) -> LocalProcess:
        """The parent process, leader of the group."""
        process: LocalProcess = self.container.process
        return process

    def hostname(self) -> str:
        """Celery's name of the node."""
        return f"{self.process.name}@{socket.gethostname()}"

    def child(self) -> psutil.Process | None:
        """Return the pool child, which holds the model; None while there is none."""
        for process in self.process.children():
            try:
                if "spawn_main" in " ".join(process.cmdline()):
                    return process
            except psutil.Error:
                continue
        return None

    def get_running_processes_info(self, columns: list[str] | None = None, filters: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """Return what psutil tells of the worker's processes."""
        found = [psutil.Process(self.process.pid), *self.process.children()]
        told = [process.as_dict(columns) for process in found]
        return [info for info in told if all(info.get(key) == value for key, value in (filters or {}).items())]


class BrokerContainer(CeleryTestContainer):  # type: ignore[misc]
    """The broker as pytest-celery sees it.

    Args:
        broker: The server.
        url: With credentials.
    """

    def __init__(self, broker: Broker, url: str) -> None:
        self._container = broker
        self._url = url

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """Where it is."""
        return {"url": self._url, "host_url": self._url, "hostname": "127.0.0.1", "port": self._container.port, "vhost": "/"}

    @property
    def status(self) -> str:
        """It was started before the case."""
        return "running"

    def ready(self) -> bool:
        """Whoever started it has waited for it."""
        return True

    def teardown(self) -> None:
        """Leave it running, as the workers."""

    def kill(self, signal: str | int | None = None) -> None:
        """Kill it."""
        self._container.kill()

    def reload(self) -> None:
        """Do nothing: nothing is remembered."""

    def restart(self, timeout: float = 10) -> None:
        """Kill it and start it again on the same port."""
        self._container.kill()
        self._container.start()


class BrokerNode(CeleryTestBroker):  # type: ignore[misc]
    """The broker under attack."""
