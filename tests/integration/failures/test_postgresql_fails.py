"""The failure matrix of what is written through: what the caller gets, what is kept, and what is read after the failure has passed.

PostgreSQL is really out of reach, standing still, read-only, or gone in the middle of a commit.
"""

import time
from contextlib import ExitStack
from typing import Any

from sqlalchemy import event

from app.db import Database
from tests.factories.processes import wait_until
from tests.factories.statements import Sql
from tests.integration.failures.conftest import Place


def pooled(database: Database) -> list[Any]:
    """Return the driver's connections that lie in the pool."""
    with ExitStack() as stack:
        taken = [stack.enter_context(database.engine.connect()) for _ in range(database.engine.pool.checkedin())]  # type: ignore[attr-defined]
        return [connection.connection.dbapi_connection for connection in taken]


def test_postgresql_out_of_reach_fails_writes_and_leaves_redis_alone(place: Place) -> None:
    assert (place.put("c", 1), place.note("before")) == (201, 201)
    # The key and the value are known; nothing else is needed to read.
    assert place.step("c") == 1
    before = place.value("c")
    place.database_proxy.cuts_answers_to = b""
    assert (place.put("c", 2), place.delete("c"), place.note("lost?")) == (503, 503, 503)
    assert place.value("c") == before
    assert place.step("c") == 1, "what Redis holds is read without PostgreSQL"


def test_outage_is_told_to_whoever_had_a_good_key_though_nobody_can_look_it_up(place: Place) -> None:
    from_afar = {"X-Forwarded-For": "192.0.2.1"}
    assert place.client.get("/metrics", headers=from_afar).status_code == 200
    known = place.services.keys._known
    known._entries.update({digest: (0.0, key) for digest, (_, key) in known._entries.items()})
    place.database_proxy.cuts_answers_to = b""
    metrics, health = place.client.get("/metrics", headers=from_afar), place.client.get("/health")
    assert (metrics.status_code, health.status_code) == (200, 503)
    assert "nexus_database_up 0.0" in metrics.text
    assert health.get_json()["components"]["postgresql"]["status"] == "unhealthy"
    assert place.client.get("/stats").get_json()["code"] == "database_unavailable"
    stranger = place.client.application.test_client().get("/metrics", headers=from_afar | {"X-API-Key": "nxs_unknown"})
    samples = [line for line in stranger.text.splitlines() if line and not line.startswith("#")]
    assert (stranger.status_code, samples) == (200, ["nexus_database_up 0.0"]), (
        "whom nobody knew may be anybody: the outage is told, no more"
    )


def test_read_only_postgresql_is_no_error_of_the_service(place: Place) -> None:
    """As after a failover to a standby, or where a full disk is guarded."""
    assert place.note("before") == 201
    forbidden: list[bool] = [True]

    def forbid(connection: Any, *_: object) -> None:
        connection.set_session(readonly=forbidden[0])

    event.listen(place.services.database.engine, "checkout", forbid)
    assert place.note("lost?") == 503
    health = place.client.get("/health")
    assert (health.status_code, health.get_json()["components"]["postgresql"]["status"]) == (503, "unhealthy")
    assert "read-only" in health.get_json()["components"]["postgresql"]["detail"]
    assert place.client.get("/health/ready").status_code == 503
    known = place.services.keys._known
    known._entries.clear()
    assert place.recent() == ["before"], "what is there is found, and a key that must be looked up opens"
    forbidden[0] = False
    assert place.note("after") == 201


def test_postgresql_that_stands_still_holds_nobody_for_long(place: Place) -> None:
    """Its network is alive and it says nothing, as with a disk that hangs: no keepalive and no timeout of its own ends the wait.

    Unmended, the waits below never end; the bounds only have to be shorter than that.
    """
    assert (place.put("c", 1), place.note("before")) == (201, 201)
    assert place.services.health.report().components["postgresql"]["status"] == "healthy"
    for connection in pooled(place.services.database):
        connection.answer_seconds = 1.0
    place.database_proxy.black_hole()
    began = time.monotonic()
    assert place.note("lost?") == 503
    assert time.monotonic() - began < 20
    began = time.monotonic()
    health = place.services.health.report()
    assert (health.status, health.components["postgresql"]["status"]) == ("unhealthy", "unhealthy")
    assert not place.services.health.ready()[0]
    assert time.monotonic() - began < 40
    place.database_proxy.pass_on()
    wait_until(lambda: place.note("after") == 201, 10, "PostgreSQL is not used again")


def test_lost_answer_of_a_commit_is_a_503_and_what_took_effect_is_read(place: Place, sql: Sql) -> None:
    """Nobody may serve what was there before it."""
    assert (place.put("c", 1), place.note("before")) == (201, 201)
    assert (place.step("c"), place.recent()) == (1, ["before"])
    place.database_proxy.cuts_answers_to = b"COMMIT"
    assert (place.put("c", 2), place.note("after")) == (503, 503)
    place.database_proxy.cuts_answers_to = None
    stored = int(sql.one("SELECT active_content ->> 'step' FROM nexus_memory.working_memory_contexts"))
    assert place.step("c") == stored == 2
    assert place.recent() == ["after", "before"]


def test_commit_that_fails_leaves_both_stores_as_they_were(place: Place, sql: Sql) -> None:
    assert place.put("c", 1) == 201
    before = place.value("c")
    sql(
        "CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '40001'; END $$;"
        "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON nexus_memory.working_memory_contexts DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION pg_temp.refuse()"
    )
    assert place.put("c", 2) == 503
    assert place.value("c") == before
    assert place.step("c") == 1
    assert sql.one("SELECT active_content ->> 'step' FROM nexus_memory.working_memory_contexts") == "1"
