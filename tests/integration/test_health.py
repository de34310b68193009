"""The truth table of /health over HTTP: each real component fine, failing and slow, and what follows for status and code.

The table stands in docs/reference/health.md; each of its rows is a case here.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, make_url

from app.bootstrap import Services, build_services
from app.config import Settings
from app.db import Database
from app.factory import create_app
from app.queue import workers
from app.queue.workers import WorkerIdentity
from tests.factories.documents import ROOT
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import new_episode
from tests.factories.processes import wait_until
from tests.factories.proxy import Proxy
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql

TABLE = (ROOT / "docs" / "reference" / "health.md").read_text(encoding="utf-8").partition("## The truth table")[2]
ROWS = re.findall(r"^\| ([^|]+) \| `(\w+)` \| (\w+) \| (\w+), (\d{3}) \|$", TABLE, re.MULTILINE)

_DISPATCHER = WorkerIdentity("dispatcher@h:1", "dispatcher", "h", 1)
_WORKER = WorkerIdentity("worker@h:2", "worker", "h", 2, slots=1)


@dataclass
class Place:
    """The service with each of its servers behind a proxy, and a dispatcher and a worker that were heard from; nothing is stored."""

    client: FlaskClient
    services: Services
    sql: Sql
    workers: Database
    postgresql: Proxy
    redis: Proxy
    broker: Proxy
    held: ExitStack

    def beat(self, identity: WorkerIdentity, problem: str | None = None) -> None:
        with self.workers.transaction() as connection:
            workers.beat(connection, identity, problem=problem)

    def fill_queue(self, state: str, rows: int = 1, age: str = "0 s") -> None:
        self.services.episodes.store_many("alice", [new_episode(f"{state} {number}") for number in range(rows)])
        died = "retry_count = 5, last_error = 'encoder_error: X', processed_at = now()," if state == "dead" else ""
        self.sql(f"UPDATE memory_system.embeddings_queue SET {died} state = %s, enqueued_at = now() - %s::interval", state, age)

    def fall_silent(self, kind: str) -> None:
        self.sql("UPDATE memory_system.workers SET heartbeat_at = now() - interval '61 s' WHERE kind = %s", kind)

    def unload_model(self) -> None:
        encoder = self.services.search._encoder
        encoder.stop()
        encoder._loaded.clear()

    def lose_an_episode(self) -> None:
        self.fill_queue("pending")
        self.sql(TRIGGERS_OFF)
        self.sql("DELETE FROM nexus_memory.zep_episodic_memory")
        self.sql(TRIGGERS_ON)

    def unmake_schema(self) -> None:
        self.sql("ALTER TABLE memory_system.workers RENAME TO gone")

    def write_nothing(self) -> None:
        def forbid(connection: Any, *_: object) -> None:
            connection.set_session(readonly=True)

        event.listen(self.services.health._database.engine, "checkout", forbid)

    def lock(self, table: str) -> None:
        self.sql("BEGIN")
        self.held.callback(self.sql, "ROLLBACK")
        self.sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

    def lose_one_of_two_workers(self) -> None:
        self.fall_silent("worker")
        self.beat(replace(_WORKER, worker_id="worker@h:3"))

    def delay(self, proxy: Proxy, seconds: float) -> None:
        proxy.delay_seconds = seconds


@pytest.fixture
def place(database_settings: Settings, worker_database: Database, sql: Sql, encoder: FakeEncoder) -> Iterator[Place]:
    database, redis = make_url(database_settings.database_url), make_url(database_settings.redis_url)
    assert database.port is not None and redis.port is not None
    with ExitStack() as stack:
        proxies = [Proxy(port).start() for port in (database.port, redis.port, redis.port)]
        for proxy in proxies:
            stack.callback(proxy.stop)
        settings = database_settings.model_copy(
            update={
                "database_url": database.set(port=proxies[0].port).render_as_string(),
                "redis_url": f"redis://127.0.0.1:{proxies[1].port}/0",
                "broker_url": f"redis://127.0.0.1:{proxies[2].port}/1",
                "database_connect_timeout_seconds": 1,
                # Whose key it is, is known for so long without PostgreSQL.
                "authentication_cache_seconds": 600.0,
                "queue_depth_threshold": 5,
            }
        )
        services = build_services(settings, load=lambda _: encoder)
        stack.callback(services.close)
        client = create_app(settings, services).test_client()
        client.environ_base["HTTP_X_API_KEY"] = settings.secret("admin_api_key")
        made = Place(client, services, sql, worker_database, proxies[0], proxies[1], proxies[2], stack)
        made.beat(_DISPATCHER)
        made.beat(_WORKER)
        services.search._encoder.start_loading()
        wait_until(lambda: services.search.ready()[0], 20, "the encoder is not loaded")
        assert client.get("/stats").status_code == 200
        yield made


def _together(*breaks: Callable[[Place], None]) -> Callable[[Place], None]:
    def break_all(place: Place) -> None:
        for each in breaks:
            each(place)

    return break_all


CASES: dict[str, Callable[[Place], None]] = {
    "nothing, and nothing is stored": lambda _: None,
    "PostgreSQL is away": lambda place: place.postgresql.lead_nowhere(),
    "PostgreSQL is slow": lambda place: place.delay(place.postgresql, 0.05),
    "PostgreSQL has not answered for 2 s": lambda place: place.delay(place.postgresql, 1.5),
    "PostgreSQL is read-only": lambda place: place.write_nothing(),
    "a table that writing needs is locked": lambda place: place.lock("memory_system.embeddings_queue"),
    "the schema is not there": lambda place: place.unmake_schema(),
    "Redis is away": lambda place: place.redis.lead_nowhere(),
    "Redis is slow": lambda place: place.delay(place.redis, 0.05),
    "Redis has not answered for 0.5 s": lambda place: place.delay(place.redis, 0.4),
    "the broker is away": lambda place: place.broker.lead_nowhere(),
    "the broker has not answered for 1 s": lambda place: place.delay(place.broker, 0.8),
    "the model is still loading": lambda place: place.unload_model(),
    "no dispatcher was heard from for a minute": lambda place: place.fall_silent("dispatcher"),
    "no worker was heard from for a minute": lambda place: place.fall_silent("worker"),
    "one of two workers fell silent": lambda place: place.lose_one_of_two_workers(),
    "every worker is paused": lambda place: place.beat(_WORKER, "the encoder fails for every text (RuntimeError)"),
    "more rows are pending than the threshold": lambda place: place.fill_queue("pending", 6),
    "as many rows are pending as the threshold": lambda place: place.fill_queue("pending", 5),
    "the oldest pending row is too old": lambda place: place.fill_queue("pending", 1, "301 s"),
    "a row is dead": lambda place: place.fill_queue("dead"),
    "an accepted episode is unaccounted for": lambda place: place.lose_an_episode(),
    "Redis and the broker are away": _together(lambda place: place.redis.lead_nowhere(), lambda place: place.broker.lead_nowhere()),
    "no worker, and the queue is deep": _together(lambda place: place.fall_silent("worker"), lambda place: place.fill_queue("pending", 6)),
    "Redis is away, and an episode is unaccounted for": _together(
        lambda place: place.lose_an_episode(), lambda place: place.redis.lead_nowhere()
    ),
    "everything is away": _together(
        lambda place: place.redis.lead_nowhere(),
        lambda place: place.broker.lead_nowhere(),
        lambda place: place.unload_model(),
        lambda place: place.postgresql.lead_nowhere(),
    ),
}


def test_every_row_of_the_table_is_a_case() -> None:
    assert [row[0] for row in ROWS] == list(CASES)


@pytest.mark.parametrize(("case", "component", "status", "whole", "code"), ROWS, ids=[row[0].replace(" ", "-") for row in ROWS])
def test_truth_table(case: str, component: str, status: str, whole: str, code: str, place: Place) -> None:
    CASES[case](place)
    answer = place.client.get("/health")
    report = answer.get_json()
    assert (report["components"][component]["status"], report["status"], answer.status_code) == (status, whole, int(code)), report
    assert len(report["components"]) == 8
    assert ("Retry-After" in answer.headers) is (code == "503")
    ready = place.client.get("/health/ready")
    is_ready = report["components"]["postgresql"]["status"] == report["components"]["encoder"]["status"] == "healthy"
    assert ready.status_code == (200 if is_ready else 503)
    assert place.client.get("/health/live").status_code == 200
