"""A stack that is watched by Prometheus and Alertmanager, for the tests that break it: one for all of this folder."""

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psycopg2
import pytest
from psycopg2 import extensions
from sqlalchemy import make_url

from app.bootstrap import build_reconciliation_service, build_services
from app.config import Settings
from app.queue.dead import DeadSelection
from app.stack import ports
from app.stack.layout import Layout, State
from app.stack.postgres import Postgres
from app.stack.secret_files import write_missing
from app.stack.service import Stack
from app.stack.supervisor import STOPPED_STATES, Supervisor
from tests.acceptance.conftest import free_port
from tests.factories.celery_exporter import CeleryExporter, ExporterEnvironment
from tests.factories.processes import wait_until
from tests.factories.prometheus import Watchtower
from tests.factories.statements import Sql

PATIENCE_SECONDS = 90.0
_words = ("kettle", "harbour", "ledger", "winter", "violin", "copper", "meadow", "signal", "orchard", "granite", "lantern", "thicket")
_IN_WORK = "SELECT count(*) FROM memory_system.embeddings_queue WHERE state = 'processing' AND started_at IS NOT NULL"


@dataclass
class Scene:
    """A stack with one worker whose rows die of their first failure, and those who watch it.

    Attributes:
        exporter: None where celery-exporter cannot be installed.
        seen: By alert, the seconds from the break until it fired and from the mending until it was resolved.
    """

    stack: Stack
    settings: Settings
    tower: Watchtower
    supervisor: Supervisor
    sql: Sql
    exporter: CeleryExporter | None
    seen: dict[str, list[float]] = field(default_factory=dict)

    def client(self) -> httpx.Client:
        headers = {"X-API-Key": self.settings.secret("admin_api_key"), "X-Agent-Id": "alerts"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.settings.port}", headers=headers, timeout=30, trust_env=False)

    def write(self, count: int, words: int) -> None:
        """Store so many episodes of so many words."""
        dice = random.Random(count)
        items = [{"content": f"{number} " + " ".join(dice.choices(_words, k=words))} for number in range(count)]
        with self.client() as client:
            for start in range(0, count, 1000):
                client.post("/memory/actions", json={"items": items[start : start + 1000]}).raise_for_status()

    def start(self, *names: str) -> None:
        """Start programs that were told to stop, each once it has."""
        for name in names:
            wait_until(partial(self._has_stopped, name), PATIENCE_SECONDS, f"{name} has stopped")
            self.supervisor.start(name)

    def _has_stopped(self, name: str) -> bool:
        return any(process.name == name and process.state in STOPPED_STATES for process in self.supervisor.processes())

    def rows(self, state: str) -> int:
        return int(self.sql.one("SELECT count(*) FROM memory_system.embeddings_queue WHERE state = %s", state))

    def lose_a_worker(self, count: int) -> int:
        """Have a worker die over a batch of so many rows, and return how many of them died with it."""
        before = self.rows("dead")
        self.write(count, words=250)
        wait_until(lambda: self.sql.one(_IN_WORK) > 10, PATIENCE_SECONDS, "a batch in work")
        os.kill(self.sql.one("SELECT pid FROM memory_system.workers WHERE kind = 'worker'"), signal.SIGKILL)
        wait_until(lambda: self.rows("dead") > before + 10, 20, lambda: f"{self.rows('dead')} rows dead")
        return self.rows("dead") - before

    def replay(self) -> int:
        """Have every dead row tried again, and return how many were."""
        services = build_services(self.settings)
        replayed = services.dead_rows.replay(DeadSelection(), 1000, None).replayed
        services.close()
        return replayed

    def reconcile(self) -> None:
        """Compare the stores, as beat has it done."""
        service = build_reconciliation_service(self.settings)
        for kind in ("working", "vectors"):
            service.run(kind)
        service._database.close()

    @contextmanager
    def broken(self, *alerts: str) -> Iterator[None]:
        """Wait for alerts to fire, then let the block mend, then wait for them to be resolved."""
        fired = self.tower.seconds_until(alerts, "firing", PATIENCE_SECONDS)
        yield
        resolved = self.tower.seconds_until(alerts, "resolved", PATIENCE_SECONDS)
        self.seen |= {alert: [fired[alert], resolved[alert]] for alert in alerts}


def superuser(settings: Settings) -> extensions.connection:
    layout = Layout(settings.data_dir)
    url = make_url(Postgres(layout, lambda _: None).superuser_dsn(State.read(layout).postgres_port))
    connection = psycopg2.connect(host=url.host, port=url.port, user=url.username, password=url.password, dbname="nexus_memory")
    connection.autocommit = True
    return connection


@pytest.fixture(scope="package")
def scene(exporter_environment: ExporterEnvironment) -> Iterator[Scene]:
    folder = Path(tempfile.mkdtemp(prefix="nexus-alerts-"))
    settings = Settings(
        data_dir=folder / "data",
        secrets_dir=folder / "secrets",
        port=free_port(),
        api_processes=1,
        worker_replicas=1,
        max_attempts=1,
        batch_chars=1_000_000,
        heartbeat_seconds=1.0,
    )
    write_missing(settings)
    stack = Stack(settings)
    with ExitStack() as started:
        started.callback(shutil.rmtree, folder)
        started.callback(stack.down)
        stack.up()
        layout = stack.layout
        watching = folder / "watching"
        watching.mkdir()
        exporter = CeleryExporter(exporter_environment, stack.settings, watching) if exporter_environment.is_made() else None
        if exporter is not None:
            started.callback(exporter.stop)
            exporter.start()
        tower = Watchtower(layout, watching, exporter.port if exporter else ports.choose(0))
        started.callback(tower.stop)
        connection = started.enter_context(closing(superuser(stack.settings)))
        supervisor = Supervisor(State.read(layout).supervisor_socket)
        scene = Scene(stack, stack.settings, tower, supervisor, Sql(connection), exporter)
        # As beat has it done within its first five minutes.
        scene.reconcile()
        tower.start()
        yield scene
