"""Every alert, live: something is broken, Alertmanager has the alert; it is mended, and the alert is gone."""

import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
from app.stack.layout import Layout, State
from app.stack.postgres import Postgres
from app.stack.secret_files import write_missing
from app.stack.service import Stack
from app.stack.supervisor import STOPPED_STATES, Supervisor
from tests.acceptance.conftest import free_port
from tests.factories.processes import wait_until
from tests.factories.prometheus import Watchtower, needs_prometheus
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql

pytestmark = needs_prometheus

_PATIENCE_SECONDS = 90.0
_POISONED = 16
_words = ("kettle", "harbour", "ledger", "winter", "violin", "copper", "meadow", "signal", "orchard", "granite", "lantern", "thicket")
_AGE_THE_FIRST = """
    UPDATE memory_system.embeddings_queue SET enqueued_at = now() - interval '11 min'
    WHERE target_id = (SELECT target_id FROM memory_system.embeddings_queue WHERE state = 'pending' ORDER BY due_at, target_id LIMIT 1)
"""
_STORED_COLUMNS = """
    SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
    WHERE attrelid = 'nexus_memory.zep_episodic_memory'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""


@dataclass
class Scene:
    """A stack with one worker whose rows die of their first failure, and those who watch it.

    Attributes:
        seen: By alert, the seconds from the break until it fired and from the mending until it was resolved.
    """

    stack: Stack
    settings: Settings
    tower: Watchtower
    supervisor: Supervisor
    sql: Sql
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
            wait_until(partial(self._has_stopped, name), _PATIENCE_SECONDS, f"{name} has stopped")
            self.supervisor.start(name)

    def _has_stopped(self, name: str) -> bool:
        return any(process.name == name and process.state in STOPPED_STATES for process in self.supervisor.processes())

    def rows(self, state: str) -> int:
        return int(self.sql.one("SELECT count(*) FROM memory_system.embeddings_queue WHERE state = %s", state))

    def reconcile(self) -> None:
        """Compare the stores, as beat has it done."""
        service = build_reconciliation_service(self.settings)
        for kind in ("working", "vectors"):
            service.run(kind)
        service._database.close()

    @contextmanager
    def broken(self, *alerts: str) -> Iterator[None]:
        """Wait for alerts to fire, then let the block mend, then wait for them to be resolved."""
        fired = self.tower.seconds_until(alerts, "firing", _PATIENCE_SECONDS)
        yield
        resolved = self.tower.seconds_until(alerts, "resolved", _PATIENCE_SECONDS)
        self.seen |= {alert: [fired[alert], resolved[alert]] for alert in alerts}


def superuser(settings: Settings) -> extensions.connection:
    layout = Layout(settings.data_dir)
    url = make_url(Postgres(layout, lambda _: None).superuser_dsn(State.read(layout).postgres_port))
    connection = psycopg2.connect(host=url.host, port=url.port, user=url.username, password=url.password, dbname="nexus_memory")
    connection.autocommit = True
    return connection


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
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
        authentication_cache_seconds=60.0,
    )
    write_missing(settings)
    stack = Stack(settings)
    tower = None
    try:
        stack.up()
        layout = stack.layout
        watching = folder / "watching"
        watching.mkdir()
        tower = Watchtower(layout, watching)
        with closing(superuser(stack.settings)) as connection:
            scene = Scene(stack, stack.settings, tower, Supervisor(State.read(layout).supervisor_socket), Sql(connection))
            # As beat has it done within its first five minutes.
            scene.reconcile()
            tower.start()
            yield scene
    finally:
        if tower is not None:
            tower.stop()
        stack.down()
        shutil.rmtree(folder)


def test_every_target_is_scraped_and_nothing_fires_while_all_is_well(scene: Scene) -> None:
    jobs = {"nexus-api": 1, "nexus-dispatcher": 1, "nexus-worker": 1, "flower": 1, "prometheus": 1, "alertmanager": 1}
    everything = {job: ["1"] * targets for job, targets in jobs.items()}
    wait_until(lambda: scene.tower.up() == everything, 30, lambda: f"seen {scene.tower.up()}")
    scene.write(20, words=8)
    wait_until(lambda: scene.rows("done") == 20, _PATIENCE_SECONDS, "20 rows done")
    time.sleep(4)  # What would fire, fires after two seconds.
    assert scene.tower.firing() == set()
    assert scene.tower.value('embeddings_processed_total{target_kind="episodic"}') == 20


def test_nobody_at_work_and_stores_that_disagree(scene: Scene) -> None:
    sql = scene.sql
    for name in ("worker_1", "dispatcher"):
        scene.supervisor.stop(name)
    scene.write(1001, words=4)
    sql(_AGE_THE_FIRST)
    columns = sql.one(_STORED_COLUMNS)
    sql(f"CREATE TABLE public.lost AS SELECT {columns} FROM nexus_memory.zep_episodic_memory ORDER BY seq LIMIT 1")
    sql(TRIGGERS_OFF)
    sql("DELETE FROM nexus_memory.zep_episodic_memory WHERE episode_id IN (SELECT episode_id FROM public.lost)")
    sql("UPDATE memory_system.reconciliation_runs SET finished_at = now() - interval '3 h' WHERE kind = 'vectors'")
    sql("INSERT INTO memory_system.recall_checks (model_id, samples, recall, worst) VALUES (1, 10, 0.9, 0.5)")
    with scene.broken(
        "EmbeddingsWorkerDown",
        "EmbeddingsDispatcherDown",
        "EmbeddingsQueueDepthHigh",
        "OldestPendingTooOld",
        "AccountingIdentityBroken",
        "ReconciliationTooOld",
        "IndexRecallLow",
    ):
        scene.start("dispatcher", "worker_1")
        sql(f"INSERT INTO nexus_memory.zep_episodic_memory ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM public.lost")
        sql(TRIGGERS_ON)
        sql("DROP TABLE public.lost")
        scene.reconcile()
        sql("INSERT INTO memory_system.recall_checks (model_id, samples, recall, worst) VALUES (1, 10, 0.99, 0.9)")
    with scene.client() as client:
        client.delete("/agents/alerts").raise_for_status()


def slow_down(scene: Scene) -> None:
    """Have four requests wait for a second and a half, for a lock that somebody holds."""
    with closing(superuser(scene.settings)) as holder, holder.cursor() as cursor, scene.client() as client:
        holder.autocommit = False
        cursor.execute("LOCK TABLE nexus_memory.working_memory_contexts")
        waiting = [threading.Thread(target=client.get, args=("/memory/working",)) for _ in range(4)]
        for thread in waiting:
            thread.start()
        time.sleep(1.5)  # What makes them slow.
        holder.rollback()
        for thread in waiting:
            thread.join()


def test_rows_that_die_with_their_worker_and_slow_answers(scene: Scene) -> None:
    before = scene.rows("done")
    with scene.client() as client:
        client.get("/memory/working").raise_for_status()
    # A rate begins with the first value that was scraped.
    wait_until(lambda: scene.tower.query('api_latency_seconds_count{url_rule="/memory/working"}'), 20, "the route has been scraped")
    scene.write(_POISONED, words=250)
    started = "SELECT count(*) FROM memory_system.embeddings_queue WHERE started_at IS NOT NULL"
    wait_until(lambda: scene.sql.one(started) > 10, _PATIENCE_SECONDS, "a batch in work")
    os.kill(scene.sql.one("SELECT pid FROM memory_system.workers WHERE kind = 'worker'"), signal.SIGKILL)
    wait_until(lambda: scene.rows("dead") > 10, 20, lambda: f"{scene.rows('dead')} rows dead")
    slow_down(scene)
    with scene.broken("EmbeddingsHighDLQRate", "EmbeddingsDeadRows", "APIHighLatency"):
        assert scene.tower.value("sum(embeddings_worker_child_restarts_total)") == 1
        assert scene.tower.value('sum(embeddings_worker_batches_total{outcome="lost"})') == 1
        services = build_services(scene.settings)
        replay = services.dead_rows.replay(DeadSelection(), 1000, None)
        services.close()
        assert replay.replayed > 10
    wait_until(lambda: scene.rows("done") == before + _POISONED, _PATIENCE_SECONDS, lambda: f"{scene.rows('done')} rows done")
    assert scene.tower.value('embeddings_dead_total{cause="worker_lost"}') == replay.replayed


def test_database_and_api_that_are_down(scene: Scene) -> None:
    scene.supervisor.stop("postgres")
    with scene.broken("DatabaseUnreadable"):
        scene.start("postgres")
    scene.supervisor.stop("api")
    with scene.broken("APIDown"):
        scene.start("api")


def test_every_alert_was_seen_to_fire_and_to_be_resolved(scene: Scene) -> None:
    assert scene.seen.keys() == {rule["alert"] for rule in scene.tower.rules}
    print(*(f"\n{alert:27} fired after {fired:5} s, resolved after {resolved:5} s" for alert, (fired, resolved) in scene.seen.items()))
