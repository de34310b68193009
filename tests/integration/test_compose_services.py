"""The services of compose/docker-compose.yml, run as processes with what their containers would have: an episode is stored and found."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.factories import compose
from tests.factories.celery_exporter import ExporterEnvironment
from tests.factories.containers import Containers
from tests.factories.processes import wait_until

AGENT = "compose"
SERVICES = ("dispatcher", "worker", "beat", "api", "flower", "mcp", "celery-exporter")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Not pytest's own folder, through which PostgreSQL's user may not pass.
    made = Path(tempfile.mkdtemp(prefix="nexus-compose-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def composed(folder: Path, exporter_environment: ExporterEnvironment) -> Iterator[Containers]:
    """Every service up and content, as `up --wait` leaves it; celery-exporter comes with its own test."""
    services = Containers(folder, {"RETRY_BASE_SECONDS": "0.5", "API_PROCESSES": "1"}, exporter_environment.python)
    try:
        services.start("postgres")
        services.start("redis")
        for name in ("postgres", "redis"):
            services.wait_for(name)
        migrated = services.run("migrate")
        assert migrated.returncode == 0, migrated.stdout + migrated.stderr
        for name in ("dispatcher", "worker", "beat", "api", "flower", "mcp"):
            services.start(name)
        for name in ("api", "dispatcher", "worker", "flower", "mcp"):
            services.wait_for(name)
        yield services
    finally:
        services.close()


@pytest.fixture(scope="module")
def api(composed: Containers) -> Iterator[httpx.Client]:
    url = f"http://127.0.0.1:{composed.ports['api']}"
    headers = {"X-API-Key": composed.secret("admin_api_key"), "X-Agent-Id": AGENT}
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


def test_every_service_of_ours_is_run_here() -> None:
    ours = {name for name, service in compose.load()["services"].items() if "build" in service}
    assert ours == {*SERVICES, "migrate", "admin"}


def test_an_episode_is_stored_embedded_and_found(api: httpx.Client) -> None:
    stored = api.post("/memory/action", json={"content": "The nightly backup failed because the disk was full.", "tags": ["ops"]})
    assert stored.status_code == 201, stored.text
    wait_until(lambda: api.get("/stats", params={"agent_id": AGENT}).json()["embedded"] == 1, 60, "the episode gets no vector")
    found = api.post("/memory/search", json={"query": "storage ran out of space", "mode": "vector", "limit": 1}).json()["results"]
    assert [hit["episode_id"] for hit in found] == [stored.json()["episode_id"]]


def test_health_finds_nothing_wrong(api: httpx.Client) -> None:
    report = api.get("/health").json()
    assert report["status"] == "healthy", report


def test_migrating_again_changes_nothing(composed: Containers) -> None:
    again = composed.run("migrate")
    assert again.returncode == 0, again.stderr
    assert "the schema is up to date" in again.stdout


@pytest.mark.parametrize(
    "command", [("queue", "status"), ("reconcile", "run"), ("integrity", "verify"), ("embedding", "status")], ids=" ".join
)
def test_administrators_container_has_what_commands_need(command: tuple[str, ...], composed: Containers) -> None:
    done = composed.run("admin", *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_flower_asks_for_the_key(composed: Containers) -> None:
    url = f"http://127.0.0.1:{composed.ports['flower']}/workers?json=1"
    with httpx.Client(trust_env=False, timeout=30) as client:
        assert client.get(url).status_code == 401
        answer = client.get(url, auth=("admin", composed.secret("admin_api_key")))
    assert answer.status_code == 200


def test_users_of_redis_may_do_what_is_theirs(composed: Containers) -> None:
    port = str(composed.ports["redis"])
    for user, command, answer in (
        ("nexus_cache", "SET nexus:a 1 EX 5", "OK"),
        ("nexus_cache", "GET celery", "NOPERM"),
        ("nexus_cache", "EVAL return(1) 0", "NOPERM"),
        ("nexus_reconciler", "EVAL return(1) 0", "1"),
        ("nexus_broker", "LLEN embed.hi", "0"),
        ("nexus_broker", "CONFIG GET maxmemory", "NOPERM"),
        ("default", "PING", "WRONGPASS"),
    ):
        environment = {**os.environ, "REDISCLI_AUTH": composed.secret("redis_password")}
        tool = composed.tool("redis-cli")
        done = subprocess.run(
            [tool, "-p", port, "--user", user, *command.split()], check=False, env=environment, capture_output=True, text=True, timeout=10
        )
        assert answer in done.stdout + done.stderr, (user, command, done)


@pytest.mark.parametrize(
    ("name", "secret"), [("dispatcher", "pg_worker_password"), ("flower", "admin_api_key"), ("migrate", "postgres_password")]
)
def test_a_missing_secret_ends_a_process_with_its_name(name: str, secret: str, composed: Containers) -> None:
    done = composed.run_without(name, secret)
    assert done.returncode != 0
    assert secret in done.stdout + done.stderr


def test_celery_exporter_counts_the_tasks_from_an_environment_of_its_own(
    composed: Containers, api: httpx.Client, exporter_environment: ExporterEnvironment
) -> None:
    exporter_environment.need()
    composed.start("celery-exporter")
    composed.wait_for("celery-exporter")
    api.post("/memory/action", json={"content": "Something that makes a task."})

    def counted() -> bool:
        text = httpx.get(f"http://127.0.0.1:{composed.ports['celery-exporter']}/metrics", trust_env=False).text
        return "celery_task_succeeded_total{" in text and 'name="embedding.embed_batch"' in text

    wait_until(counted, 30, lambda: f"celery-exporter counts no task: {composed.log('celery-exporter')}", every=0.5)


def test_tools_without_an_api_behind_them_are_not_healthy(composed: Containers) -> None:
    composed.wait_for("mcp", 10)
    status, said = composed.health("mcp", MCP_API_URL="http://127.0.0.1:9")
    assert status != 0
    assert "refused" in said


def test_beat_writes_its_schedule(composed: Containers) -> None:
    composed.wait_for("beat", 10)


@pytest.mark.parametrize("name", SERVICES)
def test_service_ends_in_time_when_it_is_stopped(name: str, composed: Containers) -> None:
    """The last test of the module: after it nothing runs but the servers."""
    if name in composed.running:
        assert composed.stop(name), f"{name} had to be killed"


def test_worker_that_is_gone_is_noticed(composed: Containers) -> None:
    status, said = composed.health("worker")
    assert status == 1, said
