"""Every alert, live: something is broken, Alertmanager has the alert; it is mended, and the alert is gone."""

import threading
import time
from contextlib import closing

from tests.acceptance.monitoring.conftest import PATIENCE_SECONDS, Scene, superuser
from tests.factories.processes import wait_until
from tests.factories.prometheus import needs_prometheus
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON

pytestmark = needs_prometheus

_POISONED = 16
_AGE_THE_FIRST = """
    UPDATE memory_system.embeddings_queue SET enqueued_at = now() - interval '11 min'
    WHERE target_id = (SELECT target_id FROM memory_system.embeddings_queue WHERE state = 'pending' ORDER BY due_at, target_id LIMIT 1)
"""
_STORED_COLUMNS = """
    SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
    WHERE attrelid = 'nexus_memory.zep_episodic_memory'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""


def test_every_target_is_scraped_and_nothing_fires_while_all_is_well(scene: Scene) -> None:
    jobs = {"nexus-api": 1, "nexus-dispatcher": 1, "nexus-worker": 1, "flower": 1, "prometheus": 1, "alertmanager": 1}
    everything = {job: ["1"] * targets for job, targets in jobs.items()} | {"celery-exporter": ["1" if scene.exporter else "0"]}
    wait_until(lambda: scene.tower.up() == everything, 30, lambda: f"seen {scene.tower.up()}")
    scene.write(20, words=8)
    wait_until(lambda: scene.rows("done") == 20, PATIENCE_SECONDS, "20 rows done")
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
    died = scene.lose_a_worker(_POISONED)
    slow_down(scene)
    with scene.broken("EmbeddingsHighDLQRate", "EmbeddingsDeadRows", "APIHighLatency"):
        assert scene.tower.value("sum(embeddings_worker_child_restarts_total)") == 1
        assert scene.tower.value('sum(embeddings_worker_batches_total{outcome="lost"})') == 1
        assert scene.replay() == died > 10
    wait_until(lambda: scene.rows("done") == before + _POISONED, PATIENCE_SECONDS, lambda: f"{scene.rows('done')} rows done")
    assert scene.tower.value('embeddings_dead_total{cause="worker_lost"}') == died


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
