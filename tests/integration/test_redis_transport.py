"""A worker's credit outlives an acknowledgement, or a rejection, that never arrived."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import kombu
import pytest
from redis import Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeout
from sqlalchemy import make_url

from app.config import Settings
from tests.factories.processes import wait_until
from tests.factories.proxy import Proxy

_kombu: Any = kombu  # It has no types.

OURS, KOMBUS = "tasks.redis_transport:Transport", "redis"


@pytest.fixture
def proxy(database_settings: Settings) -> Iterator[Proxy]:
    """Between kombu and the broker."""
    port = make_url(database_settings.broker_dsn).port
    assert port is not None
    proxy = Proxy(port)
    proxy.start()
    yield proxy
    proxy.stop()


SETTLED: dict[str, Callable[[Any], object]] = {
    "acknowledged": lambda message: message.ack(),
    "rejected": lambda message: message.reject(),
    "given back": lambda message: message.requeue(),
}


def another_message_is_taken(transport: str, proxy: Proxy, settings: Settings, settle: Callable[[Any], object]) -> bool:
    """Take one message at a time, lose what settles the first in a black hole, and return whether another comes after it."""
    url = make_url(settings.broker_dsn).set(port=proxy.port).render_as_string(hide_password=False)
    options = {"socket_timeout": 1, "socket_connect_timeout": 1}
    taken: list[Any] = []
    with _kombu.Connection(url, transport=transport, transport_options=options) as connection:
        channel = connection.channel()
        queue = _kombu.Queue("credit")
        producer = _kombu.Producer(channel)
        for number in (1, 2):
            producer.publish({"number": number}, routing_key=queue.name, declare=[queue])
        consumer = _kombu.Consumer(channel, [queue(channel)], callbacks=[lambda _, message: taken.append(message)], prefetch_count=1)
        consumer.consume()

        def look() -> bool:
            with suppress(OSError):
                connection.drain_events(timeout=0.2)
            return bool(taken)

        wait_until(look, 10, "the first message does not come")
        first = taken.pop()
        proxy.black_hole()
        with pytest.raises(RedisTimeout):
            settle(first)
        proxy.pass_on()
        try:
            wait_until(look, 4, "the second message does not come")
        except AssertionError:
            return False
        taken.pop().ack()
        return True


@pytest.mark.parametrize("how", SETTLED)
def test_worker_takes_the_next_message_though_what_settled_the_first_was_lost(how: str, proxy: Proxy, database_settings: Settings) -> None:
    assert another_message_is_taken(OURS, proxy, database_settings, SETTLED[how])


@pytest.mark.parametrize("how", SETTLED)
def test_mutant_kombus_own_transport_stays_deaf(how: str, proxy: Proxy, database_settings: Settings) -> None:
    assert not another_message_is_taken(KOMBUS, proxy, database_settings, SETTLED[how])


JUNK: list[bytes] = [b"null", b"not json", b"[]", b"[1, 2, 3]", b"\xff"]


def restore_beside_junk(transport: str, settings: Settings) -> list[Any]:
    """Leave junk among the unacknowledged messages beside a sound one, look for those to restore, and return what is left there."""
    with (
        _kombu.Connection(settings.broker_dsn, transport=transport, transport_options={"visibility_timeout": 0}) as connection,
        Redis.from_url(settings.broker_dsn) as redis,
    ):
        channel = connection.channel()
        queue = _kombu.Queue("credit")
        _kombu.Producer(channel).publish({"number": 1}, routing_key=queue.name, declare=[queue])
        assert queue(channel).get() is not None
        for number, junk in enumerate(JUNK):
            redis.hset("unacked", f"junk{number}", junk)
            redis.zadd("unacked_index", {f"junk{number}": 1})
        channel.qos.restore_visible(num=100)
        assert redis.llen(queue.name) == 1, "the sound message is not back in its queue"
        return [redis.hkeys("unacked"), redis.zrange("unacked_index", 0, -1)]


def test_what_is_no_message_among_the_unacknowledged_is_removed_and_ends_nobody(database_settings: Settings) -> None:
    assert restore_beside_junk(OURS, database_settings) == [[], []]


def test_mutant_kombus_own_transport_ends_at_it(database_settings: Settings) -> None:
    with pytest.raises((TypeError, ValueError, LookupError, AttributeError)):
        restore_beside_junk(KOMBUS, database_settings)


FOREIGN = ("credit", "credit\x06\x163", "unacked", "unacked_index", "_kombu.binding.credit", "_kombu.binding_deadlines")
"""The lists of a queue, what holds the unacknowledged, and what is written when a queue is declared that expires."""


def pass_beside(transport: str, settings: Settings, key: str) -> list[int]:
    """Put a key of another type in the place of one of kombu's, then send, take, and acknowledge; return what came."""
    options = {"visibility_timeout": 0}
    taken: list[int] = []

    def take(body: dict[str, int], message: Any) -> None:
        taken.append(body["number"])
        message.ack()

    with (
        _kombu.Connection(settings.broker_dsn, transport=transport, transport_options=options) as connection,
        Redis.from_url(settings.broker_dsn) as redis,
    ):
        channel = connection.channel()
        expires = 60 if key.endswith("deadlines") else None
        queue = _kombu.Queue("credit", exchange=_kombu.Exchange("credit"), routing_key="credit", expires=expires)
        if "binding" in key:
            redis.set(key, "foreign")
        with _kombu.Consumer(channel, [queue], callbacks=[take]):
            if "binding" not in key:
                redis.set(key, "foreign")
            for number in (1, 2):
                producer = _kombu.Producer(connection.channel())
                producer.publish({"number": number}, routing_key="credit", declare=[queue])
                with suppress(TimeoutError):
                    connection.drain_events(timeout=1)
            channel.qos.restore_visible(num=100)
        assert redis.type(key) != b"string"
    return taken


@pytest.fixture
def tasks_read_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's queue is one of those that workers read."""
    monkeypatch.setattr("tasks.redis_transport.CONSUMED_QUEUES", ("credit",))


@pytest.mark.parametrize("key", FOREIGN)
@pytest.mark.usefixtures("tasks_read_the_queue")
def test_key_of_another_type_is_removed_and_ends_nobody(key: str, database_settings: Settings) -> None:
    # The message that was just being taken may be lost with the key: its rows come back with their lease.
    assert pass_beside(OURS, database_settings, key)[-1:] == [2]


@pytest.mark.parametrize("key", FOREIGN)
def test_mutant_kombus_own_transport_ends_at_a_key_of_another_type(key: str, database_settings: Settings) -> None:
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        pass_beside(KOMBUS, database_settings, key)


def restored_beside_a_lock(transport: str, settings: Settings, seconds: int | None) -> int:
    """Leave a message unacknowledged behind a lock of somebody else's, and return how many were put back."""
    with (
        _kombu.Connection(settings.broker_dsn, transport=transport, transport_options={"visibility_timeout": 0}) as connection,
        Redis.from_url(settings.broker_dsn) as redis,
    ):
        channel = connection.channel()
        queue = _kombu.Queue("credit")
        _kombu.Producer(channel).publish({"number": 1}, routing_key=queue.name, declare=[queue])
        assert queue(channel).get() is not None
        redis.set("unacked_mutex", "foreign", ex=seconds)
        channel.qos.restore_visible(num=100)
        return int(redis.llen(queue.name))


def test_lock_without_an_end_is_removed_and_one_with_an_end_is_kept(database_settings: Settings) -> None:
    assert restored_beside_a_lock(OURS, database_settings, seconds=60) == 0
    assert restored_beside_a_lock(OURS, database_settings, seconds=None) >= 1


def test_mutant_kombus_own_transport_waits_for_a_lock_without_an_end(database_settings: Settings) -> None:
    assert restored_beside_a_lock(KOMBUS, database_settings, seconds=None) == 0
