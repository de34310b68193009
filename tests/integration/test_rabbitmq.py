"""RabbitMQ as the broker, for real: its server, a worker, a dispatcher and Flower as processes, and what its death and silence cost."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from app.bootstrap import Services, build_services
from app.config import Settings
from app.observability.health import Component
from app.stack import environment, ports
from app.stack.layout import Layout
from tasks.names import CONSUMED_QUEUES
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import new_episode
from tests.factories.rabbitmq import RabbitServer, require
from tests.factories.servers import TestServers
from tests.factories.statements import Sql

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 60.0
AGENT = "rabbit"


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


class Installation:
    """A worker and a dispatcher that talk through one RabbitMQ, and the API's services beside them."""

    def __init__(self, broker: RabbitServer, settings: Settings, services: Services, sql: Sql, logs: Path) -> None:
        self.broker = broker
        self.settings = settings
        self.services = services
        self.sql = sql
        self.logs = logs
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stored = 0

    def start(self, name: str, *command: str) -> None:
        with (self.logs / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=environment.for_programs(self.settings, Layout(self.settings.data_dir)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text()

    def family(self, name: str) -> list[psutil.Process]:
        first = psutil.Process(self.processes[name].pid)
        return [first, *first.children(recursive=True)]

    @contextmanager
    def halted(self, *processes: psutil.Process) -> Iterator[None]:
        """Let the processes do nothing, as if their machine had gone away with its connections open."""
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def store(self, count: int) -> None:
        texts = [f"note {number} of the voyage: the wind turned at dawn" for number in range(self._stored, self._stored + count)]
        self._stored += count
        self.services.episodes.store_many(AGENT, [new_episode(text) for text in texts])

    def counts(self) -> dict[str, int]:
        """Return how many queue rows are in each state."""
        return dict(self.sql("SELECT state, count(*) FROM memory_system.embeddings_queue GROUP BY state"))

    def wait_for_all(self) -> None:
        """Wait until every stored episode is embedded; each must have been started by a worker exactly once."""
        wait_until(lambda: self.counts() == {"done": self._stored}, f"{self._stored} done")
        assert self.sql("SELECT DISTINCT retry_count FROM memory_system.embeddings_queue") == [(1,)]
        assert self.sql("SELECT count(*) FROM nexus_memory.zep_episodic_memory WHERE embedding IS NOT NULL") == [(self._stored,)]
        assert self.services.integrity.drift() == 0

    def look(self) -> tuple[Component, float]:
        """Return what /health makes of the broker, and the seconds it took."""
        started = time.monotonic()
        report = self.services.health.report()
        return Component(**report.components["broker"]), time.monotonic() - started

    def queue_lengths(self) -> dict[str, int]:
        """Return how many messages each queue of ours holds, given to a worker or not."""
        return {name: int(count) for name, count in self.broker.control("list_queues", "name", "messages") if name in CONSUMED_QUEUES}


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitServer]:
    require()
    with RabbitServer() as started:
        yield started


@pytest.fixture(scope="module")
def running(broker: RabbitServer, servers: TestServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with servers.database() as name, closing(servers.superuser(name)) as connection:
        settings = servers.settings_for(
            name,
            broker_url=broker.url,
            rabbitmq_password_file=broker.password_file,
            flower_port=ports.choose(0),
            batch_rows=4,
            lease_seconds=20,
            heartbeat_seconds=2,
            reaper_seconds=1,
        )
        services = build_services(settings, load=lambda _: FakeEncoder())
        installation = Installation(broker, settings, services, Sql(connection), tmp_path_factory.mktemp("logs"))
        try:
            worker = ("celery", "-A", "tasks.celery_app", "worker", "--loglevel", "INFO", "--concurrency", "1")
            installation.start("worker", *worker, "-n", "worker1@%h", "-Q", ",".join(CONSUMED_QUEUES))
            installation.start("dispatcher", "tasks.dispatch")
            yield installation
        finally:
            _end(installation)
            services.close()


def _end(installation: Installation) -> None:
    families = [process for name in installation.processes for process in _alive(installation, name)]
    for process in families:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for started in installation.processes.values():
        started.wait(10)


def _alive(installation: Installation, name: str) -> list[psutil.Process]:
    try:
        return installation.family(name)
    except psutil.NoSuchProcess:
        return []


def test_episodes_are_embedded_through_durable_quorum_queues(running: Installation) -> None:
    running.store(60)
    running.wait_for_all()
    queues = {name: (kind, durable) for name, kind, durable in running.broker.control("list_queues", "name", "type", "durable")}
    assert {name: queues[name] for name in CONSUMED_QUEUES} == dict.fromkeys(CONSUMED_QUEUES, ("quorum", "true"))
    # Beside them only what Celery tells its workers and what they tell: nothing delays messages.
    others = [name for name in queues if name not in CONSUMED_QUEUES]
    assert [name for name in others if "pidbox" not in name and "celeryev" not in name] == []


def test_every_publish_is_confirmed_and_no_worker_holds_more_than_one_message(running: Installation) -> None:
    running.store(4)
    running.wait_for_all()
    confirming = [row for row in running.broker.control("list_channels", "confirm", "messages_unconfirmed") if row[0] == "true"]
    assert confirming
    consumers = running.broker.control("list_consumers", "queue_name", "ack_required", "prefetch_count")
    ours = [(required, prefetch) for name, required, prefetch in consumers if name in CONSUMED_QUEUES]
    assert ours == [("true", "1")] * len(CONSUMED_QUEUES)


def test_messages_survive_a_restart_of_the_broker(running: Installation) -> None:
    with running.halted(*running.family("worker")):
        running.store(40)
        wait_until(lambda: sum(running.queue_lengths().values()) > 1, "messages in the broker")
        with running.halted(*running.family("dispatcher")):
            before = running.queue_lengths()
            running.broker.kill()
            running.broker.start()
            # Its figures are some seconds late.
            wait_until(lambda: running.queue_lengths() == before, f"the broker still has {before}", 15)
    running.wait_for_all()


def test_broker_killed_while_dispatching_loses_nothing_and_charges_nobody(running: Installation) -> None:
    done = running.counts()["done"]
    running.store(300)
    wait_until(lambda: running.counts()["done"] >= done + 20, "the first are embedded")
    running.broker.kill()
    try:
        running.store(20)
        wait_until(lambda: "broker_failed" in running.log("dispatcher"), "the dispatcher notices", 15)
        seen, seconds = running.look()
        assert seen.status == "degraded"
        assert "until the broker is back" in seen.detail
        assert seconds < 3
        assert running.counts()["pending"] > 20
    finally:
        running.broker.start()
    running.wait_for_all()
    assert running.look()[0].status == "healthy"


def test_broker_that_falls_silent_holds_nobody(running: Installation) -> None:
    failures = running.log("dispatcher").count("broker_failed")
    with running.halted(*running.broker.processes()):
        running.store(40)
        seen, seconds = running.look()
        assert seen.status == "degraded"
        assert seconds < 3
        wait_until(lambda: running.log("dispatcher").count("broker_failed") > failures, "the dispatcher gives up on it", 25)
    running.wait_for_all()


def test_flower_sees_workers_and_tasks(running: Installation) -> None:
    running.start("flower", "celery", "-A", "tasks.celery_app", "flower", "--conf=tasks/flower_config.py")
    url = f"http://127.0.0.1:{running.settings.flower_port}/metrics"

    def sees_tasks() -> bool:
        time.sleep(0.5)
        try:
            answer = httpx.get(url, timeout=2, trust_env=False)
        except httpx.TransportError:
            return False
        running.store(1)
        return 'type="task-succeeded"' in answer.text

    wait_until(sees_tasks, "Flower counts a task that succeeded")
    running.wait_for_all()


def test_password_stands_in_no_command_line_environment_or_log(running: Installation) -> None:
    password = running.broker.password
    processes = [process for name in running.processes for process in _alive(running, name)] + running.broker.processes()
    assert len(processes) > 5
    for process in processes:
        assert password not in " ".join(process.cmdline())
        assert password not in " ".join(process.environ().values())
    logs = [running.log(name) for name in running.processes] + [running.broker.log.read_text(errors="replace")]
    assert all(logs)
    assert [log for log in logs if password in log] == []


def test_silent_port_is_named_by_health_in_time(running: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        chosen = running.settings.model_dump(include=running.settings.model_fields_set)
        settings = Settings(**{**chosen, "broker_url": f"amqp://127.0.0.1:{silent.getsockname()[1]}//"})
        services = build_services(settings, load=lambda _: FakeEncoder())
        try:
            started = time.monotonic()
            component = services.health.report().components["broker"]
            assert time.monotonic() - started < 15
            assert component["status"] == "degraded"
        finally:
            services.close()
