"""Brokers that forget, die, fill up, fall silent, repeat themselves, or are far away."""

import json
from collections.abc import Callable
from itertools import product
from uuid import uuid4

import pytest
from celery import Celery
from pytest_celery import CeleryTestSetup
from redis.exceptions import RedisError

from tasks.names import EMBED_BATCH
from tests.factories.processes import wait_until
from tests.faults.case import Case
from tests.faults.servers import RabbitClusterBroker

BOTH = pytest.mark.brokers("redis", "rabbitmq")
RABBITMQ = pytest.mark.brokers("rabbitmq")
CLUSTER = pytest.mark.brokers("rabbitmq-cluster")

_OUT_OF_REACH_SECONDS = 10.0
_BLACK_HOLE_SECONDS = 120.0
_CLAIMS = """
    SELECT claim_token::text, array_agg(target_id::text) FROM memory_system.embeddings_queue
    WHERE agent_id = %s AND state = 'processing' AND (started_at IS NOT NULL) = %s GROUP BY claim_token
"""


def _fill_the_window(case: Case, rows: int = 1000) -> None:
    """Write more than the window holds and return while all of it is in flight, mostly in the broker."""
    case.world.switches.set("delay", "0.5")
    case.write(rows)
    case.wait_in_flight(4 * case.world.settings.batch_rows - 8)


@pytest.mark.short
def test_redis_flushed_with_the_window_in_flight(case: Case) -> None:
    _fill_the_window(case)
    with case.fault():
        case.world.redis.admin.flushall()
        case.world.switches.clear("delay")
    case.settle()


@pytest.mark.short
@pytest.mark.parametrize("keeps_a_log", [False, True], ids=["without a log", "with a log"])
def test_redis_killed_and_started_again(case: Case, *, keeps_a_log: bool) -> None:
    redis = case.world.redis
    if keeps_a_log:
        redis.admin.config_set("appendonly", "yes")
        redis.keeps_a_log(True)
    _fill_the_window(case)
    with case.fault():
        redis.kill()
        redis.start()
        case.world.switches.clear("delay")
    case.settle()
    redis.keeps_a_log(False)
    redis.admin.config_set("appendonly", "no")


@BOTH
def test_broker_restarted_in_order(case: Case, celery_setup: CeleryTestSetup) -> None:
    _fill_the_window(case)
    with case.fault():
        celery_setup.broker.restart()
        case.world.switches.clear("delay")
    case.settle()


@RABBITMQ
def test_rabbitmq_killed_and_started_again(case: Case, celery_setup: CeleryTestSetup) -> None:
    _fill_the_window(case)
    with case.fault():
        celery_setup.broker.kill()
        case.world.broker.start()
        case.world.switches.clear("delay")
    case.settle()


@CLUSTER
@pytest.mark.parametrize("queue", ["embed.bulk", "embed.hi"])
def test_leader_of_a_quorum_queue_killed(case: Case, queue: str) -> None:
    """The other two nodes are a majority: they choose a leader, and clients turn to them."""
    broker = case.world.broker
    assert isinstance(broker, RabbitClusterBroker)
    case.world.switches.set("delay", "0.5")
    case.write(500, importance=0.9 if queue == "embed.hi" else 0.5)
    case.wait_in_flight(2 * case.world.settings.batch_rows)
    leader = broker.cluster.leader(queue)
    with case.fault():
        leader.kill()
        case.world.switches.clear("delay")
        case.write(100)
        wait_until(lambda: broker.cluster.leader(queue) is not leader, 60, "no other node leads")
    case.drain()
    assert not leader.is_running
    broker.start()
    case.settle()


@BOTH
def test_broker_away_for_a_while_with_new_work_coming(case: Case) -> None:
    case.write(200)
    case.wait_in_flight(32)
    with case.fault():
        case.world.broker.kill()
        case.write(200)
        _pass_time(case, _OUT_OF_REACH_SECONDS)
        case.world.broker.start()
    case.settle()


@BOTH
def test_broker_black_holed_for_two_minutes(case: Case) -> None:
    _fill_the_window(case, 600)
    with case.fault():
        case.world.broker_proxy.black_hole()
        case.world.switches.clear("delay")
        _pass_time(case, _BLACK_HOLE_SECONDS)
        case.world.broker_proxy.pass_on()
    case.settle()


def test_redis_frozen(case: Case) -> None:
    _fill_the_window(case, 600)
    with case.fault():
        case.world.redis.freeze()
        case.world.switches.clear("delay")
        _pass_time(case, _OUT_OF_REACH_SECONDS)
        case.world.redis.thaw()
    case.settle()


@BOTH
def test_connections_to_the_broker_cut_again_and_again(case: Case) -> None:
    case.write(800)
    case.wait_in_flight(32)
    with case.fault():
        for _ in range(10):
            case.world.broker_proxy.cut()
            _pass_time(case, 0.5)
    case.settle()


@BOTH
def test_broker_behind_a_slow_link(case: Case) -> None:
    case.world.broker_proxy.delay_seconds = 0.1
    case.write(300)
    with case.fault():
        case.wait_done(100)
    case.settle()


def test_redis_out_of_memory(case: Case) -> None:
    redis = case.world.redis.admin
    case.world.switches.set("delay", "0.3")
    case.write(300)
    case.wait_in_flight(64)
    with case.fault():
        redis.config_set("maxmemory", "1")
        case.write(300)
        _pass_time(case, _OUT_OF_REACH_SECONDS)
        with pytest.raises(RedisError):
            redis.lpush("embed.bulk", "one more")
        redis.config_set("maxmemory", str(256 << 20))
        # Celery's worker ends on this error; whoever runs it starts it again.
        case.world.ensure(waits=False)
        case.world.switches.clear("delay")
    case.settle()


@pytest.mark.short
@BOTH
def test_every_message_sent_three_times(case: Case) -> None:
    case.floods_broker = True
    case.world.switches.set("copies", "3")
    case.write(500)
    with case.fault():
        case.wait_done(500)
    case.settle()


@BOTH
def test_message_delivered_again_while_the_first_is_worked_on(case: Case, celery_setup: CeleryTestSetup) -> None:
    case.floods_broker = True
    case.world.switches.set("delay", "2")
    case.write(32)
    case.wait_in_flight(32)
    with case.fault():
        _send_again(case, celery_setup.app, started=True)
        case.world.switches.clear("delay")
    case.settle()


@BOTH
def test_messages_of_spent_tokens_change_nothing(case: Case, celery_setup: CeleryTestSetup) -> None:
    """What a visibility timeout brings back after the work is done: the message is old and its token spent."""
    case.floods_broker = True
    case.world.switches.set("delay", "0.5")
    case.write(64)
    case.wait_in_flight(64)
    messages = [*_messages(case, started=True), *_messages(case, started=False)]
    case.world.switches.clear("delay")
    case.wait_done(64)
    before = case.sql("SELECT * FROM memory_system.embeddings_queue WHERE agent_id = %s ORDER BY target_id", case.agent)
    left = case.world.broker.depth()
    with case.fault():
        for message in messages * 3:
            celery_setup.app.send_task(EMBED_BATCH, kwargs=message, queue="embed.bulk")
        _wait_taken(case, left)
    assert case.sql("SELECT * FROM memory_system.embeddings_queue WHERE agent_id = %s ORDER BY target_id", case.agent) == before
    case.settle()


_SOUND: dict[str, object] = {"target_kind": "episodic", "model_id": 1, "target_ids": [str(uuid4())], "token": str(uuid4())}
_JSON = "application/json"
_MALFORMED: list[tuple[object, str, dict[str, object]]] = [
    ([], _JSON, {}),
    ("x", _JSON, {}),
    (None, _JSON, {}),
    ([[], {}], _JSON, {}),
    ([{}, [], {}], _JSON, {}),
    ([[], _SOUND, 5], _JSON, {}),
    ([[], _SOUND, {}], _JSON, {"timelimit": "soon"}),
    ([[], _SOUND, {}], _JSON, {"timelimit": ["1", None]}),
    ([[], _SOUND, {}], _JSON, {"timelimit": [0.001, None]}),
    ([[], _SOUND, {}], _JSON, {"timelimit": [None, 1]}),
    ([], _JSON, {"task": "x", "id": ...}),
    ([], _JSON, {"task": {}, "id": ...}),
    ([[], _SOUND, {}], _JSON, {"task": ["embedding"]}),
    ([[], _SOUND, {}], _JSON, {"id": None}),
    ([[], _SOUND, {}], _JSON, {"eta": "tomorrow"}),
    ([[], _SOUND, {}], _JSON, {"stamped_headers": 3}),
    ([[], _SOUND, {}], _JSON, {"stamped_headers": ["a"], "stamps": 5}),
    ([[], _SOUND, {}], _JSON, {"stamped_headers": "a", "stamps": [1]}),
    ([[], _SOUND, {}], _JSON, {"expires": 5}),
    ([[], _SOUND, {}], _JSON, {"shadow": ["x"]}),
    ([[], _SOUND, {}], _JSON, {"root_id": {}, "parent_id": 7, "origin": []}),
    ([[], _SOUND, {}], _JSON, {"retries": "many", "group": 5, "replaced_task_nesting": "deep"}),
    ([[], _SOUND, {"callbacks": 5, "errbacks": "x", "chord": {"task": 1}, "chain": 7}], _JSON, {}),
    ([[], _SOUND | {"target_ids": ["x"]}, {}], _JSON, {}),
    ([[], _SOUND | {"model_id": 10**30}, {}], _JSON, {}),
    ([[1, 2], _SOUND | {"more": 1}, {}], _JSON, {}),
    ([[], _SOUND, {}], "application/x-python-serialize", {}),
    ([[], _SOUND, {}], _JSON, {"task": "os.system"}),
    ({"task": EMBED_BATCH, "id": str(uuid4()), "args": 5, "kwargs": None}, _JSON, {"task": ...}),
]


def _publish_malformed(celery_setup: CeleryTestSetup) -> None:
    with celery_setup.app.producer_pool.acquire(block=True) as producer:
        for queue, (body, content_type, headers) in product(("embed.hi", "embed.bulk"), _MALFORMED):
            sound: dict[str, object] = {"task": EMBED_BATCH, "id": str(uuid4()), "timelimit": [None, None], "eta": None, "lang": "py"}
            given = {name: value for name, value in {**sound, **headers}.items() if value is not ...}
            encoded = json.dumps(body).encode()
            producer.publish(encoded, routing_key=queue, content_type=content_type, content_encoding="utf-8", headers=given)


@pytest.mark.short
@BOTH
def test_malformed_messages_are_discarded_and_hold_nobody_up(case: Case, celery_setup: CeleryTestSetup) -> None:
    """What a foreign or broken producer may leave in the queues: Celery's own consumer ends at some of it, worker after worker."""
    case.floods_broker = True
    workers = [node.process.pid for node in case.world.workers]
    left = case.world.broker.depth()
    # Once while every child is free, and once while all are at work: Celery looks at a message in another place then.
    _publish_malformed(celery_setup)
    _wait_taken(case, left)
    case.world.switches.set("delay", "0.5")
    case.write(100)
    case.wait_in_flight(32)
    _publish_malformed(celery_setup)
    case.world.switches.clear("delay")
    case.write(100, importance=0.9)
    with case.fault():
        case.wait_done(200)
        _wait_taken(case, left)
    assert [node.process.pid for node in case.world.workers] == workers
    assert all(node.process.is_running for node in case.world.workers)
    case.settle()


@pytest.mark.short
def test_elements_of_a_redis_list_that_are_no_messages_are_discarded(case: Case) -> None:
    """What somebody with the broker's password may push into its lists: kombu's reader ends at it, worker after worker."""
    workers = [node.process.pid for node in case.world.workers]
    properties = {"delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "embed.hi"}, "priority": 0, "delivery_tag": "t"}
    junk: list[object] = [None, 5, "text", [], {}, {"body": "%", "properties": {}}, {"properties": properties}]
    junk += [{"body": "%%%", "properties": properties | {"body_encoding": "base64"}}, {"body": "e30=", "properties": [], "headers": 5}]
    tags: list[object] = [None, True, [], {}, 10**400]
    junk += [{"body": "e30=", "headers": {}, "properties": properties | {"body_encoding": "base64", "delivery_tag": tag}} for tag in tags]
    raw: list[bytes] = [b"", b"\xff\x00", b"{", b"[" * 100_000, *(json.dumps(each).encode() for each in junk)]
    case.floods_broker = True
    for queue in ("embed.hi", "embed.bulk", "embed.solo", "upkeep"):
        case.world.redis.admin.lpush(queue, *raw)
    # Broadcasts: remote control and events, in whichever database the broker is.
    for database, channel in product(range(16), ("celery.pidbox", "celeryev/worker.heartbeat")):
        for message in raw:
            case.world.redis.admin.publish(f"/{database}.{channel}", message)
    case.write(100, importance=0.9)
    with case.fault():
        case.wait_done(100)
        wait_until(lambda: not case.world.redis.admin.llen("embed.solo"), 60, "junk is left in a list")
    assert [node.process.pid for node in case.world.workers] == workers
    assert all(node.process.is_running for node in case.world.workers)
    case.settle()


@pytest.mark.short
def test_keys_of_another_type_in_the_place_of_brokers_own_are_removed(case: Case, celery_setup: CeleryTestSetup) -> None:
    """Redis refuses every command on them: kombu's workers end at it, one after the other, and its producers fail for ever."""
    workers = [node.process.pid for node in case.world.workers]
    redis = case.world.redis.admin
    case.write(100)
    case.wait_in_flight(32)
    with case.fault():
        for key in ("embed.hi", "embed.bulk", "embed.solo", "upkeep", "embed.bulk\x06\x163", "unacked", "unacked_index"):
            redis.delete(key)
            redis.set(key, "x") if key.startswith("embed") else redis.lpush(key, "x")
        for key in redis.scan_iter("_kombu.*"):
            redis.delete(key)
            redis.set(key, "x")
        case.write(100, importance=0.9)
        case.wait_done(200)
    assert [node.process.pid for node in case.world.workers] == workers
    assert all(node.process.is_running for node in case.world.workers)
    # One that begins declares its queues, whose tables are foreign.
    for key in redis.scan_iter("_kombu.*"):
        redis.delete(key)
        redis.set(key, "x")
    celery_setup.worker.kill()
    case.world.ensure(waits=False)
    case.write(100)
    case.wait_done(300)
    case.world.wait_at_work()
    case.settle(most_attempts=2)


def _wait_taken(case: Case, left: int) -> None:
    """Return once the workers have dealt with all messages but those that an earlier case left, which Redis keeps for five minutes."""
    wait_until(lambda: case.world.broker.depth() <= left, 120, lambda: f"{case.world.broker.depth()} messages wait, {left} did before")


def _send_again(case: Case, app: Celery, *, started: bool) -> None:
    messages = _messages(case, started=started)
    assert messages, "nothing to send again"
    for message in messages:
        app.send_task(EMBED_BATCH, kwargs=message, queue="embed.hi")


def _messages(case: Case, *, started: bool) -> list[dict[str, object]]:
    claims = case.sql(_CLAIMS, case.agent, started)
    return [{"target_kind": "episodic", "model_id": 1, "target_ids": ids, "token": token} for token, ids in claims]


def _pass_time(case: Case, seconds: float) -> None:
    """Let the fault last; the clock is PostgreSQL's, and nothing is waited for but time."""
    started = case.sql.one("SELECT clock_timestamp()")
    passed: Callable[[], object] = lambda: case.sql.one("SELECT extract(epoch FROM clock_timestamp() - %s)::float8", started) >= seconds  # noqa: E731
    wait_until(passed, seconds + 30, "time does not pass", every=min(0.5, seconds / 2))
