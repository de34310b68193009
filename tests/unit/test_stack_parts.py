"""The parts of the embedded stack that need no server: tables, configuration, state, command line."""

import configparser
import http.server
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.config import Settings
from app.errors import StackError
from app.stack import environment, ports, readiness
from app.stack.layout import PROJECT_ROOT, Layout, State, write_private
from app.stack.lock import OwnerLock, owner_pid
from app.stack.os_user import OsUser, let_through
from app.stack.programs import QUEUES, service_programs
from app.stack.redis_server import RedisBinary
from app.stack.secret_files import write_missing
from app.stack.supervisor import configuration, log_tail


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "a folder with 100% room" / "data")
    layout.create()
    return layout


def test_every_program_runs_this_interpreter_and_each_worker_every_queue(layout: Layout) -> None:
    programs = service_programs(Settings(worker_replicas=3), layout)
    assert [program.name for program in programs] == ["api", "dispatcher", "worker_1", "worker_2", "worker_3", "beat", "flower", "mcp"]
    assert {tuple(program.command[:2]) for program in programs} == {(sys.executable, "-m")}
    workers = [program.command for program in programs if program.name.startswith("worker_")]
    assert len({tuple(command) for command in workers}) == 3
    assert all(command[-1] == QUEUES for command in workers)


def test_supervisor_configuration_reads_back_to_the_same_commands(layout: Layout) -> None:
    programs = service_programs(Settings(), layout)
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(configuration(layout, "/run/x.sock", programs))
    for program in programs:
        section = parser[f"program:{program.name}"]
        # supervisord expands with the % operator, as here.
        assert shlex.split(section["command"] % {}) == list(program.command)
        assert section["directory"] == str(PROJECT_ROOT)
        assert f'NEXUS_PROGRAM="{program.name}"' in section["environment"]
        assert int(section["stopwaitsecs"]) == program.stop_wait_seconds


def test_a_path_that_the_configuration_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="quote"):
        Layout(tmp_path / "it's").create()


def test_state_survives_a_round_trip_and_damage_reads_as_empty(layout: Layout) -> None:
    state = State(phase="ready", port=8002, postgres_port=5001).write(layout)
    assert State.read(layout) == state
    assert stat.S_IMODE(layout.state_file.stat().st_mode) == 0o600
    for damage in ("", "{", "[]", '{"port": "8002", "unknown": 1}'):
        write_private(layout.state_file, damage)
        assert State.read(layout) == State()


def test_only_one_owner_holds_a_folder_until_it_lets_go(layout: Layout) -> None:
    first, second = OwnerLock(layout.lock_file), OwnerLock(layout.lock_file)
    assert owner_pid(layout.lock_file) is None
    first.acquire()
    assert owner_pid(layout.lock_file) == os.getpid()
    with pytest.raises(StackError, match=f"process {os.getpid()}"):
        second.acquire()
    first.release()
    assert owner_pid(layout.lock_file) is None
    second.acquire()
    second.release()


def test_a_remembered_port_is_taken_again_unless_it_is_busy() -> None:
    free = ports.choose(0)
    assert ports.choose(free) == free
    assert ports.choose(free, frozenset({free})) != free
    with socket.create_server(("127.0.0.1", free)):
        assert ports.choose(free) != free
        with pytest.raises(StackError, match=f"PORT {free} is busy"):
            ports.require_free("PORT", "127.0.0.1", free)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StackError, match=r"HOST '192\.0\.2\.1' is not an address of this machine"):
        ports.require_free("PORT", "192.0.2.1", 8002)


def test_external_servers_are_kept_and_embedded_ones_filled_in() -> None:
    state = State(postgres_port=5001, redis_port=5002, flower_port=5003, mcp_port=5004)
    embedded = environment.with_servers(Settings(), state)
    assert embedded.database_url == "postgresql://127.0.0.1:5001/nexus_memory"
    assert (embedded.redis_url, embedded.broker_url) == ("redis://127.0.0.1:5002/0", "redis://127.0.0.1:5002/1")
    external = environment.with_servers(Settings(database_url="postgresql://db/x", broker_url="amqp://mq//"), state)
    assert (external.database_url, external.broker_url) == ("postgresql://db/x", "amqp://mq//")
    assert environment.needs_embedded_redis(Settings(broker_url="amqp://mq//"))
    assert not environment.needs_embedded_redis(Settings(broker_url="amqp://mq//", redis_url="redis://r/0"))


def test_changed_settings_carry_no_cached_address(tmp_path: Path) -> None:
    (tmp_path / "redis_password.txt").write_text("secret\n")
    settings = Settings(secrets_dir=tmp_path)
    assert settings.cache_dsn.endswith("@127.0.0.1:6379/0")
    assert environment.with_servers(settings, State(redis_port=5002)).cache_dsn.endswith("@127.0.0.1:5002/0")


def test_programs_see_chosen_settings_absolute_paths_and_the_mark(layout: Layout) -> None:
    settings = environment.absolute(Settings(lease_seconds=3, data_dir=Path("data"), secrets_dir=Path("secrets")))
    told = environment.for_programs(settings, layout)
    assert told["LEASE_SECONDS"] == "3.0"
    assert Path(told["DATA_DIR"]).is_absolute()
    assert Path(told["SECRETS_DIR"]).is_absolute()
    assert told["NEXUS_STACK"] == layout.stack_id
    assert "BATCH_ROWS" not in told


def test_parent_folders_become_passable_but_not_readable(tmp_path: Path) -> None:
    target = tmp_path / "closed" / "data"
    target.mkdir(parents=True)
    target.parent.chmod(0o700)
    said: list[str] = []
    let_through(OsUser("somebody", 54321, 54321), target, said.append)
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o701
    assert any(str(target.parent) in line for line in said)
    said.clear()
    let_through(OsUser("somebody", 54321, 54321), target, said.append)
    assert said == []


@pytest.mark.parametrize(
    ("product", "version", "is_behind"),
    [
        ("redis", (6, 2, 14), True),
        ("redis", (6, 2, 20), False),
        ("redis", (7, 0, 15), True),
        ("redis", (8, 2, 1), True),
        ("valkey", (8, 1, 4), False),
        ("redis", (9, 0, 0), False),
    ],
)
def test_a_redis_behind_its_security_fixes_is_named(product: str, version: tuple[int, ...], is_behind: bool) -> None:
    note = RedisBinary(Path("redis-server"), product, version).security_note
    assert (note is not None) is is_behind


def test_readiness_names_what_does_not_answer() -> None:
    settings = Settings(port=ports.choose(0))
    assert "the API is not ready" in (readiness.problem(settings) or "")
    assert readiness.base_url("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert readiness.base_url("::", 80) == "http://[::1]:80"


@pytest.mark.parametrize(
    ("components", "is_ready"),
    [
        ({"dispatcher": "healthy", "worker": "healthy", "queue": "degraded", "accounting_identity": "unhealthy"}, True),
        ({"dispatcher": "healthy", "worker": "degraded"}, False),
        ({"dispatcher": "degraded", "worker": "healthy"}, False),
        ({"dispatcher": "healthy"}, False),
        ({}, False),
    ],
)
def test_the_stack_is_ready_with_a_backlog_but_not_without_workers(components: dict[str, str], is_ready: bool, tmp_path: Path) -> None:
    write_missing(Settings(secrets_dir=tmp_path))
    report = json.dumps({"components": {name: {"status": status} for name, status in components.items()}}).encode()

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(report)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        found = readiness.problem(Settings(port=server.server_port, secrets_dir=tmp_path))
        server.shutdown()
        thread.join()
    assert (found is None) is is_ready


def test_log_tail_is_one_line_and_tells_when_there_is_nothing(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert log_tail(log) == "(no log)"
    log.write_bytes(b"")
    assert log_tail(log) == "(empty log)"
    log.write_bytes(b"first\n\n second \nthird\n\xff\n")
    assert log_tail(log, lines=2) == "third | \N{REPLACEMENT CHARACTER}"


def run_command(tmp_path: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "DATA_DIR": str(tmp_path / "data"), "SECRETS_DIR": str(tmp_path / "secrets"), **variables}
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_bare_command_prints_help(tmp_path: Path) -> None:
    done = run_command(tmp_path)
    assert done.returncode == 0
    assert "stack" in done.stdout
    assert "demo" in done.stdout


def test_secrets_init_loads_no_model_library(tmp_path: Path) -> None:
    code = "import sys; from app.cli.main import main; sys.argv[1:] = ['secrets', 'init']\ntry: main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'flask', 'celery', 'sqlalchemy'} & set(sys.modules)))"
    environment = {**os.environ, "SECRETS_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "admin_api_key.txt").exists()


def test_status_of_no_stack_is_three_and_down_is_harmless(tmp_path: Path) -> None:
    done = run_command(tmp_path, "stack", "status")
    assert (done.returncode, done.stdout.strip()) == (3, "not running")
    done = run_command(tmp_path, "stack", "down")
    assert (done.returncode, done.stdout.strip()) == (0, "no stack runs here")
    assert not (tmp_path / "data").exists()


def test_an_expected_error_is_one_line_and_status_one(tmp_path: Path) -> None:
    for arguments, expected in ((("stack", "up"), "secret"), (("psql",), "no stack runs here"), (("stack", "up", "--detach"), "secret")):
        done = run_command(tmp_path, *arguments)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("error: ")
        assert expected in done.stderr
    done = run_command(tmp_path, "stack", "status", PORT="99999", WORKER_REPLICAS="none")
    assert done.returncode == 1
    assert "PORT" in done.stderr
    assert "WORKER_REPLICAS" in done.stderr
