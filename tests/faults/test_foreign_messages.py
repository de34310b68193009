"""What somebody else may leave in the broker: messages, elements and keys that are none of ours."""

import json
from itertools import product
from uuid import uuid4

import pytest
from pytest_celery import CeleryTestSetup

from tasks.names import EMBED_BATCH
from tests.factories.processes import wait_until
from tests.faults.case import Case
from tests.faults.marks import BOTH

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
    case.wait_taken(left)
    case.world.switches.set("delay", "0.5")
    case.write(100)
    case.wait_in_flight(32)
    _publish_malformed(celery_setup)
    case.world.switches.clear("delay")
    case.write(100, importance=0.9)
    with case.fault():
        case.wait_done(200)
        case.wait_taken(left)
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
