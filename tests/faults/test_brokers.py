"""Brokers that forget, die, fill up, fall silent, repeat themselves, or are far away."""

from collections.abc import Callable

import pytest
from celery import Celery
from pytest_celery import CeleryTestSetup
from redis.exceptions import RedisError

from tasks.names import EMBED_BATCH
from tests.factories.processes import wait_until
from tests.faults.case import Case
from tests.faults.marks import BOTH, CLUSTER, RABBITMQ
from tests.faults.servers import RabbitClusterBroker

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
        case.wait_taken(left)
    assert case.sql("SELECT * FROM memory_system.embeddings_queue WHERE agent_id = %s ORDER BY target_id", case.agent) == before
    case.settle()


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
