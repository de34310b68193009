"""Servers, proxies and processes of one broker: everything that a case attacks, and the way to put it right again."""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import extensions
from sqlalchemy import make_url

from app.config import Settings
from app.database_setup import bootstrap, ensure_first_keys, migrate
from app.db import Database
from app.stack.programs import QUEUES
from app.stack.secret_files import write_missing
from tests.factories import history
from tests.factories.otlp import Collector
from tests.factories.processes import LocalProcess, is_alive, python, wait_until
from tests.factories.proxy import Proxy
from tests.factories.statements import Sql
from tests.faults.nodes import WorkerNode
from tests.faults.servers import BROKERS, Broker, PostgresServer, RabbitBroker, RabbitClusterBroker, RedisBroker, ShutDown, make_layout
from tests.faults.switches import ENCODER_VARIABLE, FOLDER_VARIABLE, Switches

_READY_SECONDS = 120.0


@dataclass(frozen=True)
class Profile:
    """How a run of the suite is set up.

    Attributes:
        name: short, quick or full.
        encoder: real or fake.
        settings: What differs from production's settings.
    """

    name: str
    encoder: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_QUICK_RETRIES = {"retry_base_seconds": 0.5, "retry_max_seconds": 2.0, "breaker_base_seconds": 1.0, "breaker_max_seconds": 4.0}
_SHORT_TIMES = {**_QUICK_RETRIES, "task_time_limit_seconds": 6.0, "lease_seconds": 4.0, "heartbeat_seconds": 1.0, "reaper_seconds": 0.5}
PROFILES = {
    # Production's lease, heartbeat and reaper: the recovery times of this run are those that are published.
    "full": Profile("full", "real", {**_QUICK_RETRIES, "task_time_limit_seconds": 10.0}),
    # Every case with the times and the encoder of the short form: for whoever changes the queue or the suite.
    "quick": Profile("quick", "fake", _SHORT_TIMES),
    "short": Profile("short", "fake", _SHORT_TIMES),
    "soak": Profile("soak", "real", {"retry_base_seconds": 1.0, "retry_max_seconds": 5.0}),
}


class World:
    """One PostgreSQL, one Redis, the broker, and the processes that use them through proxies.

    Args:
        broker_name: redis, rabbitmq or rabbitmq-cluster.
        profile: Times and encoder.

    Attributes:
        settings: Of the test itself: straight to the servers.
        postgres: The database server.
        redis: The cache, and the broker too where Redis is it.
        broker: The broker.
        database_proxy: Between the processes and PostgreSQL.
        redis_proxy: Between the processes and Redis.
        broker_proxy: Between the processes and the broker; the same as Redis' where Redis is it.
        switches: How the processes misbehave.
        dispatchers: The dispatcher processes.
        workers: The worker nodes.
        beats: The beat processes.
        collector: Of the processes' traces.
    """

    def __init__(self, broker_name: str, profile: Profile) -> None:
        self.profile = profile
        self._folder = Path(tempfile.mkdtemp(prefix="nexus-faults-"))
        self._layout = make_layout(self._folder)
        switches = self._folder / "switches"
        switches.mkdir()
        self.switches = Switches(switches)
        secrets = Settings(secrets_dir=self._folder / "secrets")
        write_missing(secrets)
        self.postgres = PostgresServer(self._layout)
        self.redis = RedisBroker(self._layout, secrets.secret("redis_password"))
        self.broker: Broker = self.redis if broker_name == "redis" else BROKERS[broker_name]()
        self.database_proxy = Proxy(self.postgres.port)
        self.redis_proxy = Proxy(self.redis.port)
        self.broker_proxy = self.redis_proxy if broker_name == "redis" else Proxy(self.broker.port)
        self.settings = self._settings(self.postgres.port, self.redis.port, self.broker.port)
        self.collector = Collector()
        self._app: Database | None = None
        self._connection: extensions.connection | None = None
        self._connecting = threading.Lock()
        self.dispatchers: list[LocalProcess] = []
        self.workers: list[WorkerNode] = []
        self.beats: list[LocalProcess] = []

    def _settings(self, postgres: int, redis: int, broker: int) -> Settings:
        values: dict[str, Any] = {
            "data_dir": self._folder / "data",
            "secrets_dir": self._folder / "secrets",
            "database_url": f"postgresql://127.0.0.1:{postgres}/nexus_memory",
            "redis_url": f"redis://127.0.0.1:{redis}/0",
            "broker_url": self.broker.url(broker),
            "embedding_precision": "fp32",
            "embedding_threads": 1,
            "database_connect_timeout_seconds": 10,
        }
        if isinstance(self.broker, RabbitBroker | RabbitClusterBroker):
            values["rabbitmq_password_file"] = self.broker.password_file
        return Settings(**{**values, **self.profile.settings})

    def start(self) -> None:
        """Start the servers, make the database, and record every change of the queue from now on."""
        self.postgres.start()
        self.redis.start()
        if self.broker is not self.redis:
            self.broker.start()
        for proxy in {self.database_proxy, self.redis_proxy, self.broker_proxy}:
            proxy.start()
        self.collector.start()
        bootstrap(self.settings, self.postgres.superuser_dsn)
        migrate(self.settings)
        ensure_first_keys(self.settings)
        history.install(self.sql)

    def stop(self) -> None:
        """Stop everything that was started, by its process id, and remove its folder."""
        for process in self.processes():
            process.stop(5)
        with contextlib.suppress(Exception):
            self.close_connections()
        if self.broker is not self.redis:
            self.broker.close()
        self.redis.close()
        self.postgres.stop("immediate")
        for proxy in {self.database_proxy, self.redis_proxy, self.broker_proxy}:
            proxy.stop()
        self.collector.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def processes(self) -> list[LocalProcess]:
        """Return the processes that use the servers."""
        return [*self.beats, *self.dispatchers, *(node.process for node in self.workers)]

    @property
    def sql(self) -> Sql:
        """Statements as the superuser, past the proxy; connected anew after PostgreSQL was away."""
        with self._connecting:
            if self._connection is not None:
                try:
                    with self._connection.cursor() as cursor:
                        cursor.execute("SELECT 1")
                except psycopg2.Error:
                    self._connection.close()
                    self._connection = None
            if self._connection is None:
                self._connection = self.superuser()
            return Sql(self._connection)

    def superuser(self) -> extensions.connection:
        """Return a new connection of the superuser, in autocommit."""
        url = make_url(self.postgres.superuser_dsn)
        connection = psycopg2.connect(host=url.host, port=url.port, user=url.username, password=url.password, dbname="nexus_memory")
        connection.autocommit = True
        return connection

    @property
    def app_database(self) -> Database:
        """The API's role, past the proxy."""
        if self._app is None:
            self._app = Database(self.settings, "nexus_app", "nexus fault suite")
        return self._app

    def close_connections(self) -> None:
        """Close the test's own connections."""
        if self._app is not None:
            self._app.close()
            self._app = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def environment(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what a process is told: every setting, and where to look for sabotage."""
        proxied = self._settings(self.database_proxy.port, self.redis_proxy.port, self.broker_proxy.port)
        told = {name.upper(): str(getattr(proxied, name)) for name in proxied.model_fields_set}
        return {
            **told,
            FOLDER_VARIABLE: str(self._folder / "switches"),
            ENCODER_VARIABLE: self.profile.encoder,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            **(changes or {}),
        }

    def process(self, name: str, command: list[str], changes: Mapping[str, str] | None = None) -> LocalProcess:
        """Return a process of this world, not started."""
        return LocalProcess(name, command, self._layout.logs, self.environment(changes))

    def ensure(
        self, workers: int = 2, dispatchers: int = 1, beats: int = 0, changes: Mapping[str, str] | None = None, *, waits: bool = True
    ) -> None:
        """Bring the world to this many live processes and wait until they are at work.

        Args:
            workers: Worker nodes, each with one pool child.
            dispatchers: Dispatchers.
            beats: Beats.
            changes: Environment of those that are started now.
            waits: Whether to wait.
        """
        self._grow(self.dispatchers, dispatchers, lambda number: self._dispatcher(number, changes))
        self._grow(self.beats, beats, lambda number: self._beat(number, changes))
        while len(self.workers) > workers:
            self.workers.pop().process.stop(10)
        for number in range(len(self.workers) + 1, workers + 1):
            self.workers.append(WorkerNode(self._worker(number, changes)))
        for process in self.processes():
            if not process.is_running:
                process.start()
        if waits:
            self.wait_at_work()

    @staticmethod
    def _grow(processes: list[LocalProcess], wanted: int, make: Any) -> None:
        while len(processes) > wanted:
            processes.pop().stop(10)
        processes.extend(make(number) for number in range(len(processes) + 1, wanted + 1))

    def _dispatcher(self, number: int, changes: Mapping[str, str] | None) -> LocalProcess:
        return self.process(f"dispatcher{number}", python("tests.faults.sabotaged_dispatch"), changes)

    def _beat(self, number: int, changes: Mapping[str, str] | None) -> LocalProcess:
        schedule = str(self._folder / f"beat{number}")
        return self.process(
            f"beat{number}",
            python("celery", "-A", "tests.faults.sabotaged_beat", "beat", "-l", "INFO", "-s", schedule, "--pidfile="),
            changes,
        )

    def _worker(self, number: int, changes: Mapping[str, str] | None) -> LocalProcess:
        name = f"worker{number}"
        celery = python(
            "celery", "-A", "tests.faults.sabotaged", "worker", "-l", "INFO", "--concurrency", "1", "-n", f"{name}@%h", "-Q", QUEUES
        )
        return self.process(name, celery, changes)

    def wait_at_work(self) -> None:
        """Return once every process that should run has announced itself in the database."""
        wait_until(lambda: not self.idle(), _READY_SECONDS, lambda: "at work: " + ", ".join(self.idle()) + self._last_words(), every=0.1)

    def idle(self) -> list[str]:
        """Return the names of the processes that are not at work."""
        announced = {row[0] for row in self.sql("SELECT pid FROM memory_system.workers WHERE slots > 0 OR kind = 'dispatcher'")}
        children = [(node.process.name, node.child()) for node in self.workers]
        return [name for name, child in children if child is None or child.pid not in announced] + [
            process.name for process in self.dispatchers if not process.is_running or process.pid not in announced
        ]

    def _last_words(self) -> str:
        dead = [process for process in self.processes() if not process.is_running]
        return "".join(f"\n{process.name} ended:\n{process.logs()[-1500:].decode(errors='replace')}" for process in dead)

    def diagnosis(self) -> str:
        """Return, for the message of a failure, which processes are not at work, and the last complaints of each."""
        lines = ["not at work: " + (", ".join(self.idle()) or "nobody")]
        for process in self.processes():
            complaints = [line for line in process.logs().decode(errors="replace").splitlines() if '"level":"info"' not in line]
            lines += [f"{process.name} ({process.status}): {line[:400]}" for line in complaints[-3:]]
        return "\n".join(lines)

    def make_whole(self) -> None:
        """Take every fault away: switches off, ways free, servers up, two workers and a dispatcher at work, no work left."""
        self.switches.clear()
        for proxy in (self.database_proxy, self.redis_proxy, self.broker_proxy):
            proxy.pass_on()
        self.ensure()

    def start_afresh(self) -> None:
        """After a failed case: kill the processes, empty the tables and the broker, start anew."""
        for process in self.processes():
            process.kill()
        self.dispatchers, self.workers, self.beats = [], [], []
        self.redis.kill()
        self.redis.keeps_a_log(False)
        self.redis.start()
        if self.broker is not self.redis:
            self.broker.kill()
            self.broker.start()
        self.close_connections()
        self.postgres.stop("immediate")
        self.postgres.start()
        self.empty()
        self.sql("TRUNCATE memory_system.workers")
        self.make_whole()

    def empty(self) -> None:
        """Forget every episode, its work and its events."""
        self.sql(
            "TRUNCATE nexus_memory.zep_episodic_memory, nexus_memory.episode_chunks, memory_system.embeddings_queue,"
            " memory_system.ledger, test_mode.queue_history, memory_system.done_tallies, memory_system.dead_tallies"
        )

    def restart_postgres(self, how: ShutDown) -> None:
        """Restart PostgreSQL and return once it takes connections."""
        self.close_connections()
        self.postgres.stop(how)
        self.postgres.start()

    def working_pids(self) -> set[int]:
        """Return the process ids of the pool children that live."""
        children = (node.child() for node in self.workers)
        return {child.pid for child in children if child is not None}

    def kill_child(self, node: WorkerNode) -> bool:
        """Kill a worker's pool child and return whether there was one."""
        child = node.child()
        if child is None or not is_alive(child):
            return False
        child.kill()
        return True

    @contextmanager
    def held_open(self) -> Iterator[extensions.connection]:
        """Hold a connection of the superuser whose transaction the block may leave open."""
        connection = self.superuser()
        connection.autocommit = False
        try:
            yield connection
        finally:
            connection.close()
