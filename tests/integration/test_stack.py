"""The embedded stack for real: PostgreSQL, Redis and supervisord as processes, and what survives their death."""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.config import Settings
from app.errors import StackError
from app.queue.advice import Advice, Backlog, advise
from app.stack import control, leftovers
from app.stack.layout import PROJECT_ROOT, Layout, State
from app.stack.lock import owner_pid
from app.stack.postgres import Postgres
from app.stack.programs import Program
from app.stack.secret_files import write_missing
from app.stack.service import Stack
from app.stack.supervisor import Supervisor
from app.stack.worker_scaling import WorkerScaling
from tests.integration.stack_of_servers import server_stack

WAIT_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """One data folder for the module: initdb takes seconds. Not tmp_path, whose mode 700 pytest restores at any time."""
    folder = Path(tempfile.mkdtemp(prefix="nx-stack-test-"))
    settings = Settings(data_dir=folder / "data", secrets_dir=folder / "secrets", port=free_port())
    write_missing(settings)
    yield settings
    leftovers.stop_all(Layout(settings.data_dir).stack_id)
    shutil.rmtree(folder)


@pytest.fixture
def running(settings: Settings) -> Iterator[Stack]:
    stack = server_stack(settings)
    stack.up()
    yield stack
    stack.down()


def marked(settings: Settings) -> list[leftovers.Leftover]:
    return leftovers.find(Layout(settings.data_dir).stack_id)


def pid_of(settings: Settings, program: str) -> int:
    return next(int(leftover.process.pid) for leftover in marked(settings) if leftover.program == program)


@contextlib.contextmanager
def in_foreground(settings: Settings) -> Iterator["subprocess.Popen[str]"]:
    """Run the stack as a command, ready, and leave nothing of it behind."""
    environment = {"DATA_DIR": str(settings.data_dir), "SECRETS_DIR": str(settings.secrets_dir), "PORT": str(settings.port)}
    command = [sys.executable, "-m", "tests.integration.stack_of_servers"]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
            leftovers.stop_all(Layout(settings.data_dir).stack_id)


def connect(settings: Settings, password: str, user: str = "postgres") -> "psycopg2.extensions.connection":
    port = State.read(Layout(settings.data_dir)).postgres_port
    return psycopg2.connect(host="127.0.0.1", port=port, user=user, password=password, dbname="postgres", connect_timeout=3)


def test_postgres_enforces_passwords_and_has_the_settings_of_production(running: Stack, settings: Settings) -> None:
    password = (settings.data_dir / "postgres-superuser.txt").read_text().strip()
    for wrong in ("", "wrong", password[:-1]):
        with pytest.raises(psycopg2.OperationalError, match=r"password"):
            connect(settings, wrong)
    connection = connect(settings, password)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
            assert cursor.fetchall() == [("scram-sha-256",)]
            cursor.execute("SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'template0'")
            assert cursor.fetchone() == ("b", "C.UTF-8")
            names = ("fsync", "synchronous_commit", "data_checksums", "jit", "unix_socket_directories", "listen_addresses")
            cursor.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
            assert cursor.fetchone() == ("on", "on", "on", "off", "", "127.0.0.1")
            cursor.execute("CREATE EXTENSION vector; SELECT '[1,2]'::vector <=> '[1,2]'::vector; DROP EXTENSION vector")
    finally:
        connection.close()
    assert stat.S_IMODE((settings.data_dir / "postgres-superuser.txt").stat().st_mode) == 0o600
    assert psutil.Process(pid_of(settings, "postgres")).uids().effective != 0


def test_a_failing_statement_leaves_no_content_in_the_log(running: Stack, settings: Settings) -> None:
    connection = connect(settings, (settings.data_dir / "postgres-superuser.txt").read_text().strip())
    try:
        with connection.cursor() as cursor, pytest.raises(psycopg2.errors.UniqueViolation):
            cursor.execute("CREATE TEMP TABLE t (x text PRIMARY KEY); INSERT INTO t VALUES ('tiramisu'), ('tiramisu')")
    finally:
        connection.close()
    log = (settings.data_dir / "logs" / "postgres.log").read_text()
    assert "duplicate key" in log
    assert "tiramisu" not in log


def test_redis_users_may_do_their_own_work_only(running: Stack, settings: Settings) -> None:
    port = State.read(running.layout).redis_port
    password = settings.secret("redis_password")

    def client(user: str | None, given: str | None = password) -> "redis.Redis":
        return redis.Redis(port=port, username=user, password=given, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    with pytest.raises(redis.AuthenticationError):
        client(None, None).ping()
    with pytest.raises(redis.AuthenticationError):
        client("nexus_cache", "wrong").ping()
    cache, broker, reconciler = client("nexus_cache"), client("nexus_broker"), client("nexus_reconciler")
    assert cache.set("nexus:working:a:b", "1", ex=10)
    assert cache.info("server")["redis_version"]
    assert broker.lpush("embed.hi", "x") == 1
    assert broker.delete("embed.hi") == 1
    assert reconciler.eval("return redis.call('GET', KEYS[1])", 1, "nexus:working:a:b") == b"1"
    refused: list[Callable[[], object]] = [
        lambda: cache.get("embed.hi"),
        lambda: cache.publish("other", "x"),
        lambda: cache.keys("*"),
        cache.flushall,
        lambda: cache.config_get("*"),
        lambda: cache.eval("return 1", 0),
        lambda: broker.eval("return 1", 0),
        broker.flushall,
        broker.acl_list,
        lambda: reconciler.get("embed.hi"),
        lambda: reconciler.config_get("*"),
    ]
    for command in refused:
        with pytest.raises(redis.exceptions.NoPermissionError):
            command()
    for process in marked(settings):
        assert password not in " ".join(process.process.cmdline())
    assert password not in (settings.data_dir / "redis" / "redis.conf").read_text()


def test_a_second_stack_on_the_same_folder_is_refused_and_harms_nothing(running: Stack, settings: Settings) -> None:
    before = {leftover.process.pid for leftover in marked(settings)}
    second = server_stack(settings)
    with pytest.raises(StackError, match=f"already runs .*process {os.getpid()}"):
        second.up()
    second.down()
    assert {leftover.process.pid for leftover in marked(settings)} == before
    found = control.status(settings)
    assert [process.name for process in found.processes] == ["postgres", "redis", "web"]
    assert found.owner == os.getpid()
    attached = control.attach(settings)
    assert attached is not None
    assert attached.database_url == running.settings.database_url


def test_a_busy_port_is_refused_with_its_holder(settings: Settings) -> None:
    busy = rf"PORT {settings.port} is busy: process {os.getpid()}"
    with socket.create_server(("127.0.0.1", settings.port)), pytest.raises(StackError, match=busy):
        server_stack(settings).up()
    assert marked(settings) == []
    assert owner_pid(Layout(settings.data_dir).lock_file) is None


def test_data_and_ports_stay_between_runs(settings: Settings) -> None:
    ports = []
    for expected in (None, b"kept"):
        stack = server_stack(settings)
        stack.up()
        state = State.read(stack.layout)
        ports.append((state.postgres_port, state.redis_port))
        client = redis.Redis(port=state.redis_port, username="nexus_broker", password=settings.secret("redis_password"))
        assert client.get("a broker key") == expected
        client.set("a broker key", "kept")
        client.close()
        stack.down()
        assert marked(settings) == []
    assert ports[0] == ports[1]


def test_a_program_that_cannot_start_is_named_with_its_log(settings: Settings) -> None:
    command = [sys.executable, "-c", "raise SystemExit('the reason')"]
    stack = Stack(
        settings,
        prepare=lambda _settings, _dsn: None,
        services=lambda _settings, _layout: [Program("broken", command, start_seconds=1)],
        problem=lambda _settings: "nothing answers",
    )
    with pytest.raises(StackError, match=r"broken ended 3 times.*broken\.log ends: .*the reason"):
        stack.up()
    assert marked(settings) == []


def test_ctrl_c_twice_stops_everything_and_is_a_success(settings: Settings) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with in_foreground(settings) as process:
            assert {leftover.program for leftover in marked(settings)} == {"supervisord", "postgres", "redis", "web"}
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_SECONDS) == 0
            assert marked(settings) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_killed_program_is_started_again(running: Stack, settings: Settings) -> None:
    before = pid_of(settings, "postgres")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: any(p.name == "postgres" and p.pid not in (0, before) for p in running.processes()), "a new postgres")
    postgres, port = Postgres(running.layout, lambda _: None), State.read(running.layout).postgres_port
    wait_until(lambda: postgres.problem(port) is None, "postgres answers again")


def slow_to_stop(number: int, *, starts_with_stack: bool) -> Program:
    """Return a stand-in for a worker, which takes three seconds to end after TERM."""
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(3), sys.exit(0))); time.sleep(600)"
    command = [sys.executable, "-c", code]
    return Program(f"worker_{number}", command, start_seconds=0, stop_wait_seconds=45, starts_with_stack=starts_with_stack)


def test_scaling_starts_and_warmly_stops_programs_without_waiting_for_them(settings: Settings) -> None:
    table = [slow_to_stop(1, starts_with_stack=True), slow_to_stop(2, starts_with_stack=False)]
    stack = Stack(settings, prepare=lambda _settings, _dsn: None, services=lambda _settings, _layout: table, problem=lambda _: None)
    stack.up()
    advice: list[Advice] = [advise(Backlog(1_000, 1_000), [1.0], 5.0)]
    clock = iter(range(0, 10_000, 10))
    bounds = settings.model_copy(update={"worker_min": 1, "worker_max": 2, "worker_replicas": 1})
    eager = bounds.model_copy(update={"autoscale_up_seconds": 0.0, "autoscale_down_seconds": 0.0})
    try:

        def states() -> list[str]:
            return [process.state for process in stack.processes() if process.name.startswith("worker_")]

        supervisor = Supervisor(State.read(stack.layout).supervisor_socket)
        scaling = WorkerScaling(eager, supervisor, lambda _: None, lambda: advice[0], lambda: next(clock))
        assert states() == ["RUNNING", "STOPPED"]
        scaling.step(stack.processes())
        wait_until(lambda: states() == ["RUNNING", "RUNNING"], "a second worker")
        # A TERM before Python has set its handler would end it at once.
        time.sleep(0.5)
        advice[0] = advise(Backlog(0, 0), [1.0, 1.0], 5.0)
        before = time.monotonic()
        scaling.step(stack.processes())
        assert states() == ["RUNNING", "STOPPING"], "the step must not wait"
        wait_until(lambda: states() == ["RUNNING", "STOPPED"], "it ended by itself")
        assert time.monotonic() - before >= 2.9
        advice[0] = advise(Backlog(1_000, 1_000), [1.0], 5.0)
        scaling.step(stack.processes())
        wait_until(lambda: states() == ["RUNNING", "RUNNING"], "it is started again")
    finally:
        stack.down()
    assert marked(settings) == []


def test_death_of_the_supervisor_cleans_up_and_fails(settings: Settings) -> None:
    with in_foreground(settings) as process:
        os.kill(pid_of(settings, "supervisord"), signal.SIGKILL)
        assert process.wait(WAIT_SECONDS) == 1
        assert process.stderr is not None
        assert "the process supervisor died" in process.stderr.read()
        assert marked(settings) == []


@pytest.mark.parametrize("supervisor_too", [False, True])
def test_a_killed_owner_is_recovered_by_the_next_start(settings: Settings, supervisor_too: bool) -> None:
    with in_foreground(settings) as process:
        process.kill()
        process.wait()
        if supervisor_too:
            os.kill(pid_of(settings, "supervisord"), signal.SIGKILL)
            wait_until(lambda: "supervisord" not in {leftover.program for leftover in marked(settings)}, "supervisord is gone")
        left = {leftover.process.pid for leftover in marked(settings)}
        assert len(left) >= 3
        assert control.status(settings).leftovers == len(left)
        stack = server_stack(settings)
        stack.up()
        try:
            assert left.isdisjoint(leftover.process.pid for leftover in marked(settings))
            assert "database system was not properly shut down" not in last_start(settings)
        finally:
            stack.down()


def last_start(settings: Settings) -> str:
    """Return what PostgreSQL logged since it last started."""
    return (settings.data_dir / "logs" / "postgres.log").read_text().rpartition("starting PostgreSQL")[2]


def test_stop_from_outside_stops_a_running_and_a_left_behind_stack(settings: Settings) -> None:
    with in_foreground(settings) as process:
        assert control.stop(settings, lambda _: None)
        assert process.wait(WAIT_SECONDS) == 0
    with in_foreground(settings) as process:
        process.kill()
        process.wait()
        assert control.stop(settings, lambda _: None)
        assert marked(settings) == []
    assert not control.stop(settings, lambda _: None)


def test_an_interrupted_first_start_is_made_anew_and_a_foreign_folder_is_refused() -> None:
    folder = Path(tempfile.mkdtemp(prefix="nx-stack-test-"))
    try:
        layout = Layout(folder / "data")
        layout.create()
        half = layout.root / "postgres.new"
        (half / "base").mkdir(parents=True)
        (half / "PG_VERSION").write_text("18\n")
        Postgres(layout, lambda _: None).prepare(5999)
        assert (layout.postgres / "global" / "pg_control").exists()
        assert not half.exists()
        assert not list(layout.root.glob("*.password"))
        (layout.postgres / "PG_VERSION").write_text("15\n")
        with pytest.raises(StackError, match=r"written by PostgreSQL 15 and this is PostgreSQL 18"):
            Postgres(layout, lambda _: None).prepare(5999)
        (layout.postgres / "global" / "pg_control").unlink()
        with pytest.raises(StackError, match=r"not a complete PostgreSQL data folder"):
            Postgres(layout, lambda _: None).prepare(5999)
    finally:
        shutil.rmtree(folder)
