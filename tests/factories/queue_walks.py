"""Short walks of the queue's state machine: each is harmless on the real queue, and finds a fault where its guard is gone."""

from collections.abc import Callable

from tests.factories.queue_machine import QueueMachine, machine_in
from tests.factories.queue_world import ATTEMPTS, World

Walk = Callable[[QueueMachine], object]


def plain_delivery(machine: QueueMachine) -> None:
    machine.start(["plain", "plain"])
    machine.claim()
    machine.deliver()


def reaper_among_live_leases(machine: QueueMachine) -> None:
    machine.start(["plain"])
    machine.claim()
    machine.reap()


def crash_of_a_batch(machine: QueueMachine) -> None:
    machine.start(["plain", "plain"])
    machine.claim()
    machine.kill_the_worker(0)
    machine.release_crashed(0)


def silent_worker(machine: QueueMachine) -> None:
    machine.start(["plain", "plain"])
    machine.claim()
    machine.kill_the_worker(0)
    machine.expire(0)
    machine.reap()


def poison_to_its_end(machine: QueueMachine) -> None:
    machine.start(["poison"])
    for _ in range(ATTEMPTS):
        machine.wait()
        machine.claim()
        machine.deliver()
    machine.nothing_is_broken()


def poison_replayed(machine: QueueMachine) -> None:
    poison_to_its_end(machine)
    machine.replay_dead(cure=True, which=None)


def batch_too_large(machine: QueueMachine) -> None:
    machine.start(["huge", "huge"])
    machine.claim()
    machine.deliver()


def edit_in_flight(machine: QueueMachine) -> None:
    machine.start(["plain"])
    machine.claim()
    machine.edit(0, "plain")


def change_of_nothing(machine: QueueMachine) -> None:
    machine.start(["plain"])
    machine.claim()
    machine.deliver()
    machine.change_nothing_to_encode(0, unrelated=True)


def deletion(machine: QueueMachine) -> None:
    machine.start(["plain"])
    machine.claim()
    machine.delete(0)


def late_report_of_a_crash(machine: QueueMachine) -> None:
    machine.start(["plain"])
    machine.claim()
    machine.deliver_meanwhile(0, "lost to another")


def publish_that_fails_too_late(machine: QueueMachine) -> None:
    machine.start(["plain"])
    machine.claim()
    machine.kill_the_worker(0)
    machine.fail_to_publish(0)


def client_that_holds_an_episode(machine: QueueMachine) -> None:
    machine.start(["plain"])
    machine.claim()
    machine.deliver_while_a_client_holds(0, edits=False, commits=False)


WALKS: tuple[Walk, ...] = (
    plain_delivery,
    reaper_among_live_leases,
    crash_of_a_batch,
    silent_worker,
    poison_replayed,
    batch_too_large,
    edit_in_flight,
    change_of_nothing,
    deletion,
    late_report_of_a_crash,
    publish_that_fails_too_late,
    client_that_holds_an_episode,
)


def walked(world: World, walk: Walk) -> None:
    """Take the walk, then let everything come to an end; raises AssertionError as the machine does."""
    machine = machine_in(world)()
    walk(machine)
    machine.nothing_is_broken()
    machine.teardown()
