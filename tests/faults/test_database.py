"""PostgreSQL that restarts, drops connections, refuses them, falls silent, or is held up by somebody else; clocks that are wrong."""

import time
from pathlib import Path

import pytest

from tests.faults.case import Case
from tests.faults.servers import ShutDown

_FLOW = 600
_ROOT = Path(__file__).resolve().parents[2]
_FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


@pytest.mark.short
@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_postgresql_restarted_while_encoding(case: Case, how: ShutDown) -> None:
    case.stalls_transactions = True
    case.world.switches.set("delay", "0.5")
    case.write(_FLOW)
    case.wait_in_flight(64)
    with case.fault():
        case.world.restart_postgres(how)
        case.world.switches.clear("delay")
    case.settle()


@pytest.mark.parametrize("how", ["fast", "immediate"])
@pytest.mark.parametrize("moment", ["claim", "ack"])
def test_postgresql_restarted_in_the_middle(case: Case, moment: str, how: ShutDown) -> None:
    case.stalls_transactions = True
    with case.slowed(moment):
        case.write(_FLOW)
        case.wait_in_statement(moment)
        with case.fault():
            case.world.restart_postgres(how)
    case.settle(most_attempts=2)


def test_postgresql_restarted_three_times_under_load(case: Case) -> None:
    case.stalls_transactions = True
    case.write(3 * _FLOW)
    for _ in range(3):
        case.wait_in_flight(32)
        with case.fault():
            case.world.restart_postgres("immediate")
    case.settle(most_attempts=2)


def test_a_connection_terminated_every_tenth_of_a_second(case: Case) -> None:
    case.stalls_transactions = True
    case.write(2 * _FLOW)
    case.wait_in_flight(32)
    with case.fault():
        for _ in range(100):
            case.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'nexus_worker' ORDER BY random() LIMIT 1")
            time.sleep(0.1)  # The period is what is being tried.
    case.settle(most_attempts=2)


def test_no_connection_to_be_had(case: Case) -> None:
    case.stalls_transactions = True
    case.world.switches.set("delay", "0.5")
    case.write(_FLOW)
    case.wait_in_flight(64)
    with case.fault():
        case.sql("ALTER ROLE nexus_worker CONNECTION LIMIT 0")
        try:
            case.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'nexus_worker'")
            time.sleep(10)  # How long it lasts is what is being tried.
        finally:
            case.sql("ALTER ROLE nexus_worker CONNECTION LIMIT -1")
        case.world.switches.clear("delay")
    case.settle(most_attempts=2)


def test_database_black_holed(case: Case) -> None:
    case.stalls_transactions = True
    case.world.switches.set("delay", "0.5")
    case.write(_FLOW)
    case.wait_in_flight(64)
    with case.fault():
        case.world.database_proxy.black_hole()
        case.world.switches.clear("delay")
        time.sleep(20)  # How long it lasts is what is being tried.
        case.world.database_proxy.pass_on()
    case.settle(most_attempts=2)


def test_database_cut_and_behind_a_slow_link(case: Case) -> None:
    case.stalls_transactions = True
    case.world.database_proxy.delay_seconds = 0.02
    case.write(_FLOW)
    case.wait_in_flight(32)
    with case.fault():
        for _ in range(5):
            case.world.database_proxy.cut()
            time.sleep(1)  # The period is what is being tried.
    case.settle(most_attempts=2)


def test_snapshot_held_open_by_somebody_else(case: Case) -> None:
    with case.world.held_open() as holder, holder.cursor() as cursor, case.fault():
        holder.set_session(isolation_level="REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM memory_system.embeddings_queue")
        case.write(2 * _FLOW)
        case.wait_done(2 * _FLOW)
        holder.rollback()
    case.settle()


def test_row_held_by_a_long_user_transaction_while_its_ack_arrives(case: Case) -> None:
    case.world.switches.set("delay", "0.5")
    ids = case.write(32)
    case.wait_in_flight(32)
    held = ids[0]
    with case.world.held_open() as holder, holder.cursor() as cursor:
        cursor.execute("SELECT set_config('app.current_agent_id', %s, true)", (case.agent,))
        cursor.execute("UPDATE nexus_memory.zep_episodic_memory SET content = 'held and changed' WHERE episode_id = %s", (str(held),))
        cursor.execute("SELECT memory_system.record_edit(%s)", (str(held),))
        with case.fault():
            # Nobody waits for the client: the others are done while it still holds its row.
            case.world.switches.clear("delay")
            case.wait_done(31)
            holder.commit()
    case.settle()


@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_clocks_of_workers_and_dispatcher_an_hour_wrong(case: Case, offset: str) -> None:
    assert _FAKETIME is not None, "not installed: libfaketime (apt-get install faketime)"
    for process in case.world.processes():
        process.stop()
    case.world.dispatchers.clear()
    case.world.workers.clear()
    wrong = {"LD_PRELOAD": str(_FAKETIME), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}
    case.write(300)
    with case.fault():
        case.world.ensure(changes=wrong)
    case.settle()
    for process in case.world.processes():
        process.stop()
    case.world.dispatchers.clear()
    case.world.workers.clear()


def test_no_clock_of_a_process_reaches_the_queue() -> None:
    """Times are PostgreSQL's: nothing in the queue's code asks another clock but for how long something took."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted((_ROOT / "app" / "queue").glob("*.py")))
    for clock in ("datetime.now", "datetime.utcnow", "time.time(", "date.today"):
        assert clock not in code
