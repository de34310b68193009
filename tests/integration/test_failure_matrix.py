"""The failure matrix of what is written through: what the caller gets, what is kept, and what is read after the failure has passed.

Redis is a server of its own that is really down, killed, frozen, full, read-only, locked or emptied; PostgreSQL is really out of reach.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, event, make_url, text

from app.agents import repository
from app.bootstrap import Services, build_services
from app.cache import keys
from app.config import Settings
from app.db import Database
from app.errors import OutcomeUnknown
from app.factory import create_app
from app.stack.layout import Layout
from tests.factories.encoder import FakeEncoder
from tests.factories.processes import wait_until
from tests.factories.proxy import Proxy
from tests.factories.redis import RedisServer
from tests.factories.statements import Sql

AGENT = "alice"
CACHE = "nexus_cache"


@dataclass
class Place:
    """The service between a PostgreSQL and a Redis that can fail.

    Attributes:
        client: Speaks HTTP as the agent.
        redis: The server.
        redis_proxy: Between the service and it.
        database_proxy: Between the service and PostgreSQL.
        password: Of the service's users of Redis.
    """

    client: FlaskClient
    redis: RedisServer
    redis_proxy: Proxy
    database_proxy: Proxy
    password: str
    services: Services

    def put(self, context_id: str, step: int) -> int:
        """Write a working memory and return the status of the answer."""
        body = {"active_content": {"step": step}, "ttl_seconds": 600}
        return int(self.client.put(f"/memory/working/{context_id}", json=body).status_code)

    def delete(self, context_id: str) -> int:
        """Delete a working memory and return the status."""
        return int(self.client.delete(f"/memory/working/{context_id}").status_code)

    def step(self, context_id: str) -> int | None:
        """Return what is read, None when there is nothing."""
        answer = self.client.get(f"/memory/working/{context_id}")
        assert answer.status_code in {200, 404}, answer.text
        return int(answer.json["active_content"]["step"]) if answer.status_code == 200 and answer.json is not None else None

    def forget(self) -> int:
        """Have the agent forgotten and return the status."""
        return int(self.client.delete(f"/agents/{AGENT}").status_code)

    def note(self, content: str) -> int:
        """Store an episode and return the status."""
        return int(self.client.post("/memory/action", json={"content": content}).status_code)

    def recent(self) -> list[str]:
        """Return the agent's latest episodes."""
        answer = self.client.get("/memory/episodic/recent")
        assert answer.status_code == 200 and answer.json is not None, answer.text
        return [item["content"] for item in answer.json["items"]]

    def value(self, context_id: str) -> bytes | None:
        """Return what Redis holds of a working memory."""
        value: bytes | None = self.redis.admin.get(keys.working(AGENT, context_id))  # type: ignore[assignment]
        return value

    def forget_the_pause(self) -> None:
        """Let the next request speak to Redis, which is left alone for two seconds after a failure."""
        for cache in (self.services.working._cache, self.services.episodes._cache):
            cache._redis._rest_until = 0.0


@pytest.fixture(scope="module")
def redis_server(servers: Any) -> Iterator[RedisServer]:
    """Redis with the service's configuration, the password that of the session's secrets."""
    with tempfile.TemporaryDirectory(prefix="nexus-matrix-") as folder:
        layout = Layout(Path(folder))
        layout.create()
        server = RedisServer(layout, servers.settings.secret("redis_password"))
        server.start()
        yield server
        server.close()


@pytest.fixture
def place(database_settings: Settings, redis_server: RedisServer, encoder: FakeEncoder) -> Iterator[Place]:
    """The service, each of its servers behind a proxy."""
    redis_server.admin.flushall()
    database = make_url(database_settings.database_url)
    assert database.port is not None
    with ExitStack() as stack:
        database_proxy, redis_proxy = Proxy(database.port).start(), Proxy(redis_server.port).start()
        stack.callback(database_proxy.stop)
        stack.callback(redis_proxy.stop)
        settings = database_settings.model_copy(
            update={
                "database_url": database.set(port=database_proxy.port).render_as_string(hide_password=False),
                "redis_url": f"redis://127.0.0.1:{redis_proxy.port}/0",
                "database_connect_timeout_seconds": 1,
                # What the key says is known for so long without PostgreSQL.
                "authentication_cache_seconds": 60.0,
            }
        )
        services = build_services(settings, load=lambda _: encoder)
        stack.callback(services.close)
        key = services.keys.create(role="agent", name="matrix", agent_id=AGENT, expires_days=None).secret
        client = create_app(settings, services).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        yield Place(client, redis_server, redis_proxy, database_proxy, settings.secret("redis_password"), services)


def is_killed(place: Place) -> Callable[[], None]:
    place.redis.kill()
    return place.redis.start


def dies_in_mid_request(place: Place) -> Callable[[], None]:
    place.redis_proxy.cuts_answers_to = b""

    def mend() -> None:
        place.redis_proxy.cuts_answers_to = None

    return mend


def is_frozen(place: Place) -> Callable[[], None]:
    place.redis.freeze()
    return place.redis.thaw


def is_a_black_hole(place: Place) -> Callable[[], None]:
    place.redis_proxy.black_hole()
    return place.redis_proxy.pass_on


def is_slow(place: Place) -> Callable[[], None]:
    place.redis_proxy.delay_seconds = 0.8
    return place.redis_proxy.pass_on


def is_full(place: Place) -> Callable[[], None]:
    def limit(most: int, policy: str) -> None:
        place.redis.admin.config_set("maxmemory", most)
        place.redis.admin.config_set("maxmemory-policy", policy)

    before = int(str(place.redis.admin.config_get("maxmemory")["maxmemory"]))
    limit(1, "noeviction")
    return lambda: limit(before, "volatile-ttl")


def is_read_only(place: Place) -> Callable[[], None]:
    # A master that is not there: the data stay, and nobody may write.
    place.redis.admin.replicaof("127.0.0.1", 1)

    def mend() -> None:
        place.redis.admin.replicaof("NO", "ONE")

    return mend


def refuses_the_password(place: Place) -> Callable[[], None]:
    def set_password(password: str) -> None:
        place.redis.admin.acl_setuser(CACHE, enabled=True, reset_passwords=True, passwords=[f"+{password}"])
        place.redis_proxy.cut()

    set_password("another")
    return lambda: set_password(place.password)


def pooled(database: Database) -> list[Any]:
    """Return the driver's connections that lie in the pool."""
    with ExitStack() as stack:
        taken = [stack.enter_context(database.engine.connect()) for _ in range(database.engine.pool.checkedin())]  # type: ignore[attr-defined]
        return [connection.connection.dbapi_connection for connection in taken]


FAILURES = (
    is_killed,
    dies_in_mid_request,
    is_frozen,
    is_a_black_hole,
    is_slow,
    is_full,
    is_read_only,
    refuses_the_password,
)


@pytest.mark.parametrize("fails", FAILURES, ids=lambda fails: fails.__name__.replace("_", " "))
def test_failure_of_redis_fails_no_request_and_leaves_nothing_stale(fails: Callable[[Place], Callable[[], None]], place: Place) -> None:
    assert (place.put("c", 1), place.put("gone", 1), place.note("before")) == (201, 201, 201)
    assert (place.step("c"), place.recent()) == (1, ["before"])
    old = place.value("c")
    assert old is not None
    mend = fails(place)
    try:
        assert (place.put("c", 2), place.delete("gone"), place.put("new", 1), place.note("during")) == (200, 200, 201, 201)
        assert (place.step("c"), place.step("gone"), place.step("new")) == (2, None, 1)
        assert place.recent() == ["during", "before"]
    finally:
        mend()
    # Another process that reads meanwhile: within about two seconds nothing old is left for it, without a request to this one.
    wait_until(lambda: place.value("c") != old and place.value("gone") is None, 10, "what Redis missed is not caught up on")
    assert (place.step("c"), place.step("gone"), place.step("new")) == (2, None, 1)
    assert place.recent() == ["during", "before"]
    # And Redis is used again, once it has been left alone for two seconds.
    wait_until(lambda: place.put("c", 3) == 200 and b'"step":3' in (place.value("c") or b""), 5, "nothing is written through any more")
    assert place.step("c") == 3


@pytest.mark.parametrize("fails", [is_frozen, is_a_black_hole, is_read_only], ids=lambda fails: fails.__name__.replace("_", " "))
def test_forgotten_agent_is_served_from_no_redis_that_missed_it(fails: Callable[[Place], Callable[[], None]], place: Place) -> None:
    assert (place.put("c", 1), place.put("d", 1), place.note("before")) == (201, 201, 201)
    assert (place.step("c"), place.step("d"), place.recent()) == (1, 1, ["before"])
    mend = fails(place)
    try:
        assert place.forget() == 503
        # Held back, as its thread may be: then a request does first what is owed.
        place.services.working._cache._redis._payer = threading.current_thread()
    finally:
        mend()
    place.forget_the_pause()
    assert (place.step("c"), place.step("d"), place.recent()) == (None, None, [])
    assert (place.value("c"), place.value("d")) == (None, None)
    assert place.forget() == 200


def test_agent_forgotten_in_part_is_not_served_from_redis(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (place.put("c", 1), place.step("c")) == (201, 1)

    def deletes_and_loses_the_answer(connection: Connection, _most: int) -> dict[str, int]:
        connection.execute(text("DELETE FROM nexus_memory.working_memory_contexts"))
        connection.commit()
        raise OutcomeUnknown("lost")

    monkeypatch.setattr(repository, "forget_others", deletes_and_loses_the_answer)
    assert place.forget() == 503
    assert place.step("c") is None


@pytest.mark.parametrize("fails", [is_full, is_read_only], ids=lambda fails: fails.__name__.replace("_", " "))
def test_redis_that_answers_and_takes_no_writes_serves_no_other_process(
    fails: Callable[[Place], Callable[[], None]], place: Place, database_settings: Settings, encoder: FakeEncoder
) -> None:
    settings = database_settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{place.redis.port}/0"})
    services = build_services(settings, load=lambda _: encoder)
    client = create_app(settings, services).test_client()
    client.environ_base |= place.client.environ_base
    other = Place(client, place.redis, place.redis_proxy, place.database_proxy, place.password, services)
    assert (place.put("c", 1), place.put("gone", 1), place.note("before")) == (201, 201, 201)
    assert (other.step("c"), other.step("gone"), other.recent()) == (1, 1, ["before"])
    mend = fails(place)
    try:
        assert (place.put("c", 2), place.delete("gone"), place.note("during")) == (200, 200, 201)
        assert (other.step("c"), other.step("gone"), other.recent()) == (2, None, ["during", "before"])
        other.forget_the_pause()
        assert (other.step("c"), other.step("gone"), other.recent()) == (2, None, ["during", "before"])
    finally:
        mend()
    wait_until(lambda: b'"step":1' not in (place.value("c") or b"") and place.value("gone") is None, 10, "what is owed is not paid")
    other.forget_the_pause()
    assert (other.step("c"), other.step("gone"), other.recent()) == (2, None, ["during", "before"])
    services.close()


def test_redis_that_is_down_at_the_start_is_used_once_it_is_there(place: Place, database_settings: Settings, encoder: FakeEncoder) -> None:
    place.redis.kill()
    try:
        settings = database_settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{place.redis.port}/0"})
        services = build_services(settings, load=lambda _: encoder)
        client = create_app(settings, services).test_client()
        client.environ_base |= place.client.environ_base
        late = Place(client, place.redis, place.redis_proxy, place.database_proxy, place.password, services)
        assert (late.put("c", 1), late.note("before")) == (201, 201)
        assert (late.step("c"), late.recent()) == (1, ["before"])
    finally:
        place.redis.start()
    late.forget_the_pause()
    assert late.step("c") == 1
    assert place.value("c") is not None, "the first read afterwards fills Redis"
    services.close()


def test_flush_costs_one_read_and_nothing_else(place: Place) -> None:
    assert (place.put("c", 1), place.note("before"), place.recent()) == (201, 201, ["before"])
    place.redis.admin.flushall()
    assert (place.step("c"), place.recent()) == (1, ["before"])
    assert place.value("c") is not None


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


@pytest.mark.parametrize("fails", [is_full, is_read_only, is_frozen, refuses_the_password], ids=lambda fails: fails.__name__)
def test_health_knows_a_redis_that_takes_no_writes(fails: Callable[[Place], Callable[[], None]], place: Place) -> None:
    def state() -> str:
        return str(place.services.health.report().components["redis"]["status"])

    assert state() == "healthy"
    mend = fails(place)
    try:
        assert state() == "degraded"
    finally:
        mend()
    wait_until(lambda: state() == "healthy", 5, "Redis is not healthy again")
