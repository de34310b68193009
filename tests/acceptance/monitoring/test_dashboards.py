"""Every query of every dashboard returns numbers from a Prometheus that scrapes a stack to which things happened."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import httpx
import pytest

from tests.acceptance.monitoring.conftest import PATIENCE_SECONDS, Scene, superuser
from tests.factories.dashboards import Asked, every_query, with_values
from tests.factories.processes import wait_until
from tests.factories.prometheus import needs_prometheus
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql

pytestmark = needs_prometheus

QUERIES = list(every_query())
_FAILED = 'api_requests_total{status="503", url_rule="/memory/episodic"}'
_RECALL = "INSERT INTO memory_system.recall_checks (model_id, samples, recall, worst) VALUES (1, 10, {recall}, 0.5)"
_LOSE_A_VECTOR = "DELETE FROM nexus_memory.episode_chunks WHERE episode_id = (SELECT episode_id FROM nexus_memory.episode_chunks LIMIT 1)"

WENT_WRONG = (
    'ALERTS{alertstate="firing"}',
    'status=~"5.."',
    'embeddings_queue_depth{state="dead"}',
    "embeddings_dead_total",
    "reconciliation_drift_found_total",
    "reconciliation_drift_repaired_total",
    'embeddings_worker_batches_total{outcome="lost"}',
    "embeddings_worker_child_restarts_total",
    "ann_recall_at_10",
)
"""What the fixture below makes happen: who asks for it must not be told of zeros only."""


@pytest.fixture(scope="module")
def lived(scene: Scene) -> Iterator[Scene]:
    """The stack after a little of everything: writes, searches, an outage, a lost worker, drift, a recall that is low."""
    scene = replace(scene)
    _fail(scene)
    # The outage ended the connection.
    with closing(superuser(scene.settings)) as connection:
        scene.sql = Sql(connection)
        _use(scene)
        scene.lose_a_worker(18)
        scene.sql(TRIGGERS_OFF)
        scene.sql(_LOSE_A_VECTOR)
        scene.sql(TRIGGERS_ON)
        time.sleep(2)  # A series begins with what was scraped before it rose.
        scene.reconcile()
        scene.sql(_RECALL.format(recall=0.9))
        scene.tower.seconds_until(["IndexRecallLow"], "firing", PATIENCE_SECONDS)
        _use(scene)
        time.sleep(2)  # Two scrapes of it, without which there is no rate.
        yield scene
        scene.sql(_RECALL.format(recall=0.99))
        scene.replay()


def _fail(scene: Scene) -> None:
    """Have PostgreSQL away for a moment, and somebody ask meanwhile."""
    with scene.client() as client:
        client.get("/memory/episodic").raise_for_status()
        # Before its key was known, PostgreSQL being away would keep Prometheus out too.
        wait_until(lambda: scene.tower.query("nexus_database_up == 1"), PATIENCE_SECONDS, "the API was scraped", every=0.2)
        scene.supervisor.stop("postgres")

        def away() -> bool:
            return client.get("/memory/episodic").status_code == httpx.codes.SERVICE_UNAVAILABLE

        wait_until(away, PATIENCE_SECONDS, "a 503")
        # A rate begins with the first value that was scraped: with the second error.
        wait_until(lambda: scene.tower.query(_FAILED), PATIENCE_SECONDS, "the first 503 was scraped", every=0.2)
        assert away()
        scene.start("postgres")
        wait_until(lambda: client.get("/memory/episodic").is_success, PATIENCE_SECONDS, "PostgreSQL is back")
    wait_until(lambda: scene.tower.query("max(embeddings_workers_alive) == 1"), PATIENCE_SECONDS, "the worker is back")


def _use(scene: Scene) -> None:
    """Write, read and search, and wait until all is embedded."""
    before = scene.rows("dead")
    with scene.client() as client:
        for number in range(3):
            items = [{"content": f"a harbour in winter, {time.time()} {number} {place}"} for place in range(15)]
            client.post("/memory/actions", json={"items": items}).raise_for_status()
            client.post("/memory/search", json={"query": f"ships {number}"}).raise_for_status()
            client.put("/memory/working/now", json={"active_content": {"number": number}}).raise_for_status()
            for path in ("/memory/working/now", "/memory/episodic/recent", "/memory/episodic/recent", "/nowhere"):
                client.get(path)
            time.sleep(1)
        concept = {"concept": f"harbour {time.time()}", "definition": "where ships are safe"}
        client.post("/memory/semantic", json=concept).raise_for_status()
    wait_until(lambda: scene.rows("pending") + scene.rows("processing") == 0, PATIENCE_SECONDS, "all is embedded")
    assert scene.rows("dead") == before


def numbers(asked: Asked, scene: Scene) -> list[float]:
    """Return every number that the query returns, of its moment or of the time since the stack is watched."""
    # Zero stands in for what is not there: it proves nothing.
    expression = with_values(asked.expression).replace(" or vector(0)", "")
    if asked.instant:
        found = [series["value"][1] for series in scene.tower.query(expression)]
    else:
        found = [value for series in scene.tower.over_time(expression, 300, 1) for _, value in series["values"]]
    return [value for value in map(float, found) if math.isfinite(value)]


@pytest.mark.parametrize("asked", QUERIES, ids=lambda asked: f"{asked.dashboard}-{asked.panel}-{asked.expression[:60]}")
def test_query_of_a_panel_returns_numbers(asked: Asked, lived: Scene) -> None:
    if "celery_" in asked.expression and lived.exporter is None:
        assert os.environ.get("NEXUS_REQUIRE_CELERY_EXPORTER") != "1", "celery-exporter is required and cannot be installed"
        pytest.skip("celery-exporter's requirements cannot be installed here")
    found = numbers(asked, lived)
    assert found, asked.expression
    if any(wrong in asked.expression for wrong in WENT_WRONG):
        assert any(found), f"only zeros: {asked.expression}"


def test_queries_are_many_and_each_thing_that_went_wrong_is_asked_for() -> None:
    assert len(QUERIES) > 60
    for wrong in WENT_WRONG:
        assert any(wrong in asked.expression for asked in QUERIES), wrong


def test_query_of_a_metric_that_is_not_there_is_noticed(lived: Scene) -> None:
    assert numbers(replace(QUERIES[0], expression="max(embeddings_queue_depths)", instant=False), lived) == []
