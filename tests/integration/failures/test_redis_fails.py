"""The failure matrix of what is written through: what the caller gets, what is kept, and what is read after the failure has passed.

Redis is a server of its own that is really down, killed, frozen, full, read-only, locked or emptied.
"""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text

from app.agents import repository
from app.bootstrap import build_services
from app.config import Settings
from app.errors import OutcomeUnknown
from app.factory import create_app
from tests.factories.encoder import FakeEncoder
from tests.factories.processes import wait_until
from tests.integration.failures.conftest import Place

CACHE = "nexus_cache"


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
