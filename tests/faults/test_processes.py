"""Workers, their children, dispatchers and beats that die, in the middle of what they do."""

import signal
import time

import pytest
from pytest_celery import CeleryTestSetup

from tests.factories.processes import python, wait_until
from tests.faults.case import Case
from tests.faults.marks import BOTH
from tests.faults.switches import BEAT_SECONDS


@pytest.mark.short
@BOTH
def test_child_killed_in_mid_batch(case: Case, celery_setup: CeleryTestSetup) -> None:
    case.world.switches.set("delay", "0.5")
    case.write(300)
    case.wait_in_flight(64)
    with case.fault():
        # Only what the dead child had started is given back at once; the other worker goes on.
        assert case.world.kill_child(celery_setup.worker)
        case.world.switches.clear("delay")
    case.settle(most_attempts=2)
    assert case.outcome.attempts.get(2, 0) <= case.world.settings.batch_rows


@pytest.mark.short
@BOTH
def test_worker_killed_with_its_child(case: Case, celery_setup: CeleryTestSetup) -> None:
    case.world.switches.set("delay", "0.5")
    case.write(300)
    case.wait_in_flight(64)
    with case.fault():
        celery_setup.worker.kill()
        case.world.switches.clear("delay")
    case.settle(most_attempts=2)
    assert case.outcome.attempts.get(2, 0) <= case.world.settings.batch_rows


@BOTH
def test_every_worker_killed_and_started_again(case: Case, celery_setup: CeleryTestSetup) -> None:
    case.world.switches.set("delay", "0.5")
    case.write(300)
    case.wait_in_flight(64)
    with case.fault():
        for worker in celery_setup.worker_cluster:
            worker.kill()
        case.world.switches.clear("delay")
        case.world.ensure(waits=False)
    case.settle(most_attempts=2)


def test_a_child_killed_every_two_seconds_for_a_minute(case: Case, celery_setup: CeleryTestSetup) -> None:
    case.world.switches.set("delay", "0.2")
    ids = case.write(400)
    killed, started = 0, time.monotonic()
    while time.monotonic() - started < 60:
        node = celery_setup.worker_cluster[killed % len(celery_setup.worker_cluster)]
        killed += case.world.kill_child(node)
        time.sleep(2)  # The period is what is being tried.
    case.world.switches.clear("delay")
    # A row that five children died over is dead, whoever killed them; it comes back with a replay.
    case.drain()
    replayed = case.sql.one("SELECT memory_system.replay_dead(%s::uuid[], NULL, now(), 1000)", [str(each) for each in ids])
    assert killed >= 10
    case.settle(most_attempts=5)
    case.outcome.case += f" ({killed} kills, {replayed} rows replayed)"


@BOTH
@pytest.mark.parametrize("how", ["TERM", "QUIT"])
def test_worker_told_to_stop_in_mid_batch(case: Case, celery_setup: CeleryTestSetup, how: str) -> None:
    case.world.switches.set("delay", "0.5")
    case.write(300)
    case.wait_in_flight(64)
    worker = celery_setup.worker.process
    with case.fault():
        worker.send(signal.Signals[f"SIG{how}"])
        wait_until(lambda: not worker.is_running, 60, f"the worker does not stop on {how}")
        case.world.switches.clear("delay")
    # TERM lets the batch end, QUIT does not wait for it.
    case.settle(most_attempts=1 if how == "TERM" else 2)


@pytest.mark.short
@BOTH
def test_dispatcher_killed_after_claim_before_publish(case: Case) -> None:
    dispatcher = case.world.dispatchers[0]
    case.world.switches.set("die_before_publish")
    case.write(200)
    wait_until(lambda: not dispatcher.is_running, 30, "the dispatcher does not die")
    with case.fault():
        case.world.ensure(waits=False)
    case.settle()


@BOTH
@pytest.mark.parametrize("point", ["half_published", "after_publish"])
def test_dispatcher_killed_while_publishing(case: Case, point: str) -> None:
    dispatcher = case.world.dispatchers[0]
    case.world.switches.set(f"die_{point}")
    case.write(200)
    wait_until(lambda: not dispatcher.is_running, 30, "the dispatcher does not die")
    case.world.switches.clear(f"die_{point}")
    with case.fault():
        case.world.ensure(waits=False)
    case.settle()


@BOTH
@pytest.mark.parametrize("dispatchers", [2, 4])
def test_many_dispatchers_share_the_work_and_one_dies(case: Case, dispatchers: int) -> None:
    case.world.ensure(dispatchers=dispatchers)
    case.write(1000)
    case.wait_in_flight(64)
    with case.fault():
        case.world.dispatchers[0].kill()
    case.settle()


def test_replacement_child_that_loads_longer_than_celery_waits_by_default(case: Case, celery_setup: CeleryTestSetup) -> None:
    case.world.switches.set("slow_start", "6")
    case.write(100)
    case.wait_in_flight(32)
    with case.fault():
        for worker in celery_setup.worker_cluster:
            case.world.kill_child(worker)
    case.settle(most_attempts=2)


@BOTH
def test_workers_whose_main_processes_stand_still_while_their_children_say_that_they_live(case: Case) -> None:
    """Their children keep room in the window, and nobody reads the messages: lease after lease ends."""
    case.world.switches.set("delay", "0.5")
    # More than half of what a message holds, so each row makes a message of its own.
    case.write(0, contents=[case.sentence() + " and more" * 1000 for _ in range(200)])
    case.wait_in_flight(64)
    workers = [node.process for node in case.world.workers]
    deaf = "SELECT count(*) FROM memory_system.workers WHERE problem = 'worker_deaf: its main process stands still'"
    with case.fault():
        for worker in workers:
            worker.send(signal.SIGSTOP)
        try:
            wait_until(lambda: case.sql.one(deaf) == len(workers), 90, "the children do not notice")
            wait_until(lambda: not case.states().get("processing"), 90, "leases do not end")
        finally:
            for worker in workers:
                worker.send(signal.SIGCONT)
            case.world.switches.clear("delay")
    case.settle()


@BOTH
def test_two_beats_tick_once(case: Case) -> None:
    case.world.ensure(beats=2)
    before = case.sql.one("SELECT count(*) FROM memory_system.beat_ticks")
    case.write(50)
    started = time.monotonic()
    ran = "SELECT count(*) FROM memory_system.beat_ticks"
    seconds = wait_until(lambda: case.sql.one(ran) >= before + 5, 60, lambda: f"five ticks; seen {case.sql.one(ran) - before}")
    sent = sum(beat.logs().count(b"Sending due task") for beat in case.world.beats)
    ticks = case.sql.one(ran) - before
    assert ticks <= seconds / BEAT_SECONDS + 2, f"{ticks} ticks in {seconds:.0f} s"
    assert sent >= ticks, f"{sent} messages for {ticks} ticks after {time.monotonic() - started:.0f} s"
    case.settle()


def test_beat_that_is_down_for_a_while_stops_nothing(case: Case) -> None:
    case.world.ensure(beats=1)
    with case.fault():
        case.world.beats[0].kill()
    case.write(100)
    case.settle()


def test_flower_killed_has_no_effect(case: Case) -> None:
    flower = case.world.process("flower", python("celery", "-A", "tasks.celery_app", "flower", "--conf=tasks/flower_config.py"))
    flower.start()
    wait_until(lambda: b"Connected to" in flower.logs() or not flower.is_running, 60, "Flower does not start")
    case.write(200)
    with case.fault():
        flower.stop()
    case.settle()
