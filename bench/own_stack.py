"""A stack of the benchmark's own, in a temporary folder, with its secrets and ports, that can be emptied and paused."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg2.errors
import psycopg2.extensions

from app.config import Settings
from app.database_setup import bootstrap, migrate
from app.errors import ConfigurationError, StackError
from app.stack import environment
from app.stack.layout import State
from app.stack.ports import choose
from app.stack.postgres import Postgres
from app.stack.programs import worker_names
from app.stack.readiness import base_url
from app.stack.secret_files import write_missing
from app.stack.service import Stack
from app.stack.supervisor import STOPPED_STATES, Supervisor

AGENT = "bench"
BASELINE_DATABASE = "nexus_baseline"

_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 600.0
_TRUNCATE_ATTEMPTS = 5
_TABLES = (
    "memory_system.embeddings_queue, memory_system.ledger, nexus_memory.episode_chunks, nexus_memory.zep_episodic_memory, "
    "nexus_memory.projects"
)
_OPEN = "SELECT count(*) FROM memory_system.embeddings_queue WHERE state IN ('pending', 'processing')"
_SEARCHABLE = "SELECT count(*) FROM nexus_memory.zep_episodic_memory WHERE embedding_sha256 = input_sha256"


class OwnStack:
    """The running stack, with the superuser's connection to its database.

    Args:
        stack: Up already.
        superuser: Autocommit, to the stack's database.
    """

    def __init__(self, stack: Stack, superuser: psycopg2.extensions.connection) -> None:
        self._stack = stack
        self._superuser = superuser
        self._supervisor = Supervisor(State.read(stack.layout).supervisor_socket)
        self.settings = stack.settings
        self.url = base_url(stack.settings.host, stack.settings.port)
        self.headers = {"X-API-Key": stack.settings.secret("admin_api_key"), "X-Agent-Id": AGENT, "Content-Type": "application/json"}

    def value(self, sql: str) -> Any:
        """Return the one value that a statement of a superuser brings."""
        with self._superuser.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone()
        return row[0] if row is not None else None

    def empty(self) -> None:
        """Remove every episode; nothing may be in work."""
        _truncate(self._superuser)

    def empty_when_idle(self) -> None:
        """Remove every episode while workers run: first the work, then, when no batch is out, the rest."""
        with self._superuser.cursor() as cursor:
            cursor.execute("DELETE FROM memory_system.embeddings_queue WHERE state = 'pending'")
        _wait_for(lambda: self.open_rows() == 0, "the last batches are not done")
        self.empty()

    def open_rows(self) -> int:
        """Return how many episodes wait for their vector."""
        return int(self.value(_OPEN))

    def wait_until_searchable(self) -> None:
        """Return when every stored episode has its vector.

        Raises:
            StackError: Some never got one.
        """
        _wait_for(lambda: self.open_rows() == 0, "the backlog is not drained")
        missing = int(self.value("SELECT count(*) FROM nexus_memory.zep_episodic_memory")) - int(self.value(_SEARCHABLE))
        if missing:
            raise StackError(f"{missing} episodes did not get their vector; the figures would be of another job")

    def precision(self) -> str:
        """Return what the workers encode in: fp32 or bf16."""
        return str(self.value("SELECT string_agg(DISTINCT precision, ' and ') FROM memory_system.workers WHERE kind = 'worker'"))

    @contextmanager
    def workers_stopped(self) -> Iterator[None]:
        """Run the block without workers, and have them back and alive after it."""
        with self.workers_limited(0):
            yield

    @contextmanager
    def workers_limited(self, count: int) -> Iterator[None]:
        """Run the block with the first so many workers, and have all of them back and alive after it."""
        names = worker_names(self.settings)[count:]
        self.stop(*names)
        try:
            yield
        finally:
            before = self.value("SELECT now()")
            for name in names:
                self._supervisor.start(name)
            with self._superuser.cursor() as cursor:
                _wait_for(lambda: _started_since(cursor, before) >= len(names), "the workers do not come back")

    def stop(self, *names: str) -> None:
        """Stop programs of the stack, and return when they have ended."""
        for name in names:
            self._supervisor.stop(name)
        _wait_for(lambda: self._states(list(names)) <= STOPPED_STATES, "the programs do not stop")

    def connect(self) -> psycopg2.extensions.connection:
        """Return a new connection of the superuser, in autocommit."""
        connection = psycopg2.connect(_superuser_url(self._stack))
        connection.autocommit = True
        return connection

    def change_model(self, folder: Path) -> None:
        """Make another model the active one, by the command that operators use.

        Raises:
            StackError: It could not be done; the message is the command's.
        """
        environment_of_it = {name.upper(): str(getattr(self.settings, name)) for name in self.settings.model_fields_set}
        command = [sys.executable, "-m", "app", "embedding", "migrate", "--model", str(folder.resolve())]
        done = subprocess.run(command, env=os.environ | environment_of_it, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(done.stderr.strip())

    def pids(self, *names: str) -> list[int]:
        """Return the process ids of programs that run, in no order."""
        return [info.pid for info in self._supervisor.processes() if info.name in names and info.pid]

    def renice_workers(self, nice: int) -> None:
        """Give the workers and all their children a lower priority; only a privileged user can raise it again."""
        names = set(worker_names(self.settings))
        for info in self._supervisor.processes():
            if info.name in names and info.pid:
                parent = psutil.Process(info.pid)
                for process in (parent, *parent.children(recursive=True)):
                    process.nice(nice)

    def _states(self, names: list[str]) -> set[str]:
        return {info.state for info in self._supervisor.processes() if info.name in names}

    @contextmanager
    def fresh_database(self, name: str) -> Iterator[str]:
        """Make an empty database with pgvector on the stack's server, yield the superuser's URL to it, and drop it."""
        url = _superuser_url(self._stack).rpartition("/")[0] + f"/{name}"
        with self._superuser.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            try:
                connection = psycopg2.connect(url)
                try:
                    connection.autocommit = True
                    connection.cursor().execute("CREATE EXTENSION vector")
                finally:
                    connection.close()
                yield url
            finally:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def make_baseline_database(self) -> str:
        """Make a second database by the same migrations, with the triggers off, and return the superuser's URL to it."""
        given = self.settings
        port = given.database_url.rpartition(":")[2].partition("/")[0]
        superuser_dsn = Postgres(self._stack.layout, lambda _: None).superuser_dsn(int(port))
        changed = given.model_copy(update={"database_url": f"postgresql://127.0.0.1:{port}/{BASELINE_DATABASE}"})
        bootstrap(changed, superuser_dsn)
        migrate(changed)
        url = superuser_dsn.replace("+psycopg2", "").rpartition("/")[0] + f"/{BASELINE_DATABASE}"
        connection = psycopg2.connect(url)
        connection.autocommit = True
        try:
            # Only the triggers that make work: the baseline writes at once what they would lead to. Foreign keys stay.
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE nexus_memory.zep_episodic_memory DISABLE TRIGGER USER")
        finally:
            connection.close()
        return url


def _started_since(cursor: Any, moment: Any) -> int:
    cursor.execute("SELECT count(*) FROM memory_system.workers WHERE kind = 'worker' AND started_at > %s", (moment,))
    return int(cursor.fetchone()[0])


def _truncate(connection: psycopg2.extensions.connection) -> None:
    with connection.cursor() as cursor:
        for attempt in count(1):
            try:
                cursor.execute(f"TRUNCATE {_TABLES} CASCADE")
                break
            except psycopg2.errors.DeadlockDetected:
                # The last requests of a load, whose client has gone already, lock the tables in another order.
                if attempt == _TRUNCATE_ATTEMPTS:
                    raise
        # Statistics of the emptied tables would plan for what is no longer there.
        cursor.execute(f"ANALYZE {_TABLES}")
        cursor.execute("CHECKPOINT")


def empty_database(url: str) -> None:
    """Remove every episode from the database at the superuser's URL."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        _truncate(connection)
    finally:
        connection.close()


def _wait_for(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"{problem} after {_PATIENCE_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


@contextmanager
def running_stack(report: Callable[[str], None], **changes: Any) -> Iterator[OwnStack]:
    """Start a stack in a temporary folder and take it down, with the folder, after the block.

    Args:
        report: Is told what happens.
        changes: Settings that differ from the defaults.

    Raises:
        ConfigurationError: An external server is configured: its memories would be deleted.
        StackError: The stack does not come up.
    """
    # Not below a folder of mode 700: under root, PostgreSQL runs as another user, who must reach its data.
    folder = Path(tempfile.mkdtemp(prefix="nexus-bench-"))
    try:
        settings = Settings(
            data_dir=folder / "data",
            secrets_dir=folder / "secrets",
            port=choose(0),
            flower_port=choose(0),
            log_level="INFO",
            **changes,
        )
        external = [name.upper() for name in ("database_url", "redis_url", "broker_url") if environment.is_given(settings, name)]
        if external:
            raise ConfigurationError(f"the benchmark empties its database and runs on its own servers only: unset {', '.join(external)}")
        write_missing(settings)
        stack = Stack(settings, report=report)
        try:
            stack.up()
            superuser = psycopg2.connect(_superuser_url(stack))
            superuser.autocommit = True
            try:
                yield OwnStack(stack, superuser)
            finally:
                superuser.close()
        finally:
            stack.down()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _superuser_url(stack: Stack) -> str:
    port = int(stack.settings.database_url.rpartition(":")[2].partition("/")[0])
    dsn = Postgres(stack.layout, lambda _: None).superuser_dsn(port)
    return dsn.replace("+psycopg2", "").rpartition("/")[0] + "/nexus_memory"
