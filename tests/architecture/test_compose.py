"""The containers: what they run is what the embedded stack runs, and an operator can trust them; what is wrong with a file is noticed."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

from app.config import Settings
from app.stack import environment
from app.stack.layout import Layout
from app.stack.programs import Program, postgres_program, redis_program, service_programs
from tests.factories import compose
from tests.factories.documents import ROOT

FOLDER = ROOT / "compose"
DOCUMENT = compose.load()
SERVICES: dict[str, compose.Service] = DOCUMENT["services"]
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("nexus-cerebro:")}

# Who may read what, and nobody else.
SECRETS: dict[str, set[str]] = {
    "postgres": {"postgres_password"},
    "redis": {"redis_password"},
    "migrate": {
        "postgres_password",
        "pg_superuser_password",
        "pg_app_password",
        "pg_worker_password",
        "pg_readonly_password",
        "admin_api_key",
        "metrics_api_key",
    },
    "admin": {
        "pg_superuser_password",
        "pg_app_password",
        "pg_worker_password",
        "pg_readonly_password",
        "redis_password",
        "admin_api_key",
        "metrics_api_key",
        "ledger_signing_key",
    },
    "api": {"pg_app_password", "redis_password", "console_session_key"},
    "dispatcher": {"pg_worker_password", "redis_password"},
    "worker": {"pg_worker_password", "redis_password", "ledger_signing_key"},
    "beat": {"redis_password"},
    "flower": {"redis_password", "admin_api_key"},
    "celery-exporter": {"redis_password"},
    "prometheus": {"metrics_api_key"},
    "grafana": {"grafana_admin_password"},
}
# What the embedded stack alone reads: containers have addresses, folders and numbers of their own.
OF_THE_EMBEDDED_STACK = {
    "POSTGRES_MEMORY_MB",
    "SECRETS_DIR",
    "WORKER_MIN",
    "WORKER_MAX",
    "AUTOSCALE_UP_SECONDS",
    "AUTOSCALE_DOWN_SECONDS",
}

COMPOSE = shutil.which("docker-compose")
needs_compose = pytest.mark.skipif(
    COMPOSE is None and os.environ.get("NEXUS_REQUIRE_COMPOSE") != "1", reason="docker-compose is not installed (apt-get install it)"
)


def programs(tmp_path: Path) -> dict[str, Program]:
    """Return the embedded stack's programs under the names of their services."""
    found = {program.name: program for program in service_programs(Settings(data_dir=tmp_path), Layout(tmp_path))}
    return {
        "postgres": postgres_program(["postgres"], None),
        "redis": redis_program(["redis-server"]),
        "worker": found.pop("worker_1"),
        **{name: program for name, program in found.items() if not name.startswith("worker_")},
    }


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_nothing_is_wrong_with_the_file() -> None:
    assert compose.problems(DOCUMENT) == []


def _change(service: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for name, value in changes.items():
            if value is None:
                del document["services"][service][name]
            else:
                document["services"][service][name] = value

    return change


def _open_the_servers(document: dict[str, Any]) -> None:
    document["networks"]["data"] = {}


WORSE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "port for everybody": (_change("api", ports=["0.0.0.0:8002:8002"]), "api: publishes"),
    "port without an address": (_change("grafana", ports=["3000:3000"]), "grafana: publishes"),
    "no health check": (_change("worker", healthcheck=None), "worker: has no health check"),
    "health check switched off": (_change("beat", healthcheck={"disable": True}), "beat: has no health check"),
    "latest": (_change("redis", image="redis:latest"), "redis: the image"),
    "no tag": (_change("prometheus", image="prom/prometheus"), "prometheus: the image"),
    "a line of versions": (_change("redis", image="redis:8"), "redis: the image"),
    "root": (_change("postgres", user="0:0"), "postgres: runs as"),
    "the image's user": (_change("grafana", user=None), "grafana: runs as"),
    "a capability": (_change("api", cap_add=["SYS_ADMIN"]), "api: runs as"),
    "capabilities kept": (_change("mcp", cap_drop=[]), "mcp: keeps"),
    "new privileges": (_change("flower", security_opt=[]), "flower: may gain"),
    "a root that can be written": (_change("worker", read_only=False), "worker: can write"),
    "no memory limit": (_change("dispatcher", mem_limit=None), "dispatcher: has no mem_limit"),
    "a log without end": (_change("api", logging={"driver": "json-file"}), "api: may fill"),
    "a password in the environment": (_change("grafana", environment={"GF_SECURITY_ADMIN_PASSWORD": "x"}), "grafana: GF_SECURITY"),
    "a password in a URL": (_change("celery-exporter", environment={"BROKER_URL": "redis://u:p@redis/1"}), "celery-exporter: BROKER_URL"),
    "Docker's socket": (_change("prometheus", volumes=["/var/run/docker.sock:/s"]), "prometheus: mounts"),
    "configuration that can be written": (_change("redis", volumes=["./redis:/etc/redis"]), "redis: can write"),
    "a file that is not there": (_change("redis", volumes=["./reddis:/etc/redis:ro"]), "redis: mounts ./reddis"),
    "a volume of the image's user": (_change("redis", volumes=["redis:/data"]), "redis: Docker gives"),
    "order without readiness": (_change("api", depends_on=["postgres"]), "api: waits"),
    "migrations not awaited": (_change("api", depends_on={"migrate": {"condition": "service_started"}}), "api: waits"),
    "the machine's network": (_change("api", network_mode="host"), "api: shares"),
    "servers that reach outside": (_open_the_servers, "postgres: the network"),
    "an undeclared secret": (_change("beat", secrets=["redis_pasword"]), "beat: the secret"),
}


@pytest.mark.parametrize("worse", WORSE)
def test_worse_file_is_noticed(worse: str) -> None:
    change, problem = WORSE[worse]
    document = deepcopy(DOCUMENT)
    change(document)
    assert any(found.startswith(problem) for found in compose.problems(document)), compose.problems(document)


def test_the_usual_services_are_there() -> None:
    expected = {"postgres", "redis", "migrate", "api", "dispatcher", "worker", "beat", "flower", "mcp", "celery-exporter"}
    assert set(SERVICES) == expected | {"prometheus", "alertmanager", "grafana", "volumes", "admin"}


def test_every_secret_is_where_it_is_needed_and_nowhere_else() -> None:
    assert {name: set(service["secrets"]) for name, service in SERVICES.items() if service.get("secrets")} == SECRETS
    assert set(DOCUMENT["secrets"]) == set().union(*SECRETS.values())
    assert {name: secret["file"] for name, secret in DOCUMENT["secrets"].items()} == {
        name: f"../secrets/{name}.txt" for name in DOCUMENT["secrets"]
    }


def test_servers_and_monitoring_are_apart() -> None:
    for name in ("postgres", "redis", "migrate", "beat"):
        assert SERVICES[name]["networks"] == ["data"]
    for name in ("prometheus", "alertmanager", "grafana"):
        assert SERVICES[name]["networks"] == ["monitoring"]
    assert "data" not in SERVICES["mcp"]["networks"]


def test_every_command_is_one_that_the_embedded_stack_runs(tmp_path: Path) -> None:
    native = programs(tmp_path)
    assert OURS - {"migrate", "admin"} == set(native) - {"postgres", "redis"}
    for name in OURS - {"migrate", "admin"}:
        expected = ["python" if part == sys.executable else part for part in native[name].command]
        here = [str(tmp_path / "beat/schedule") if part == "/var/lib/beat/schedule" else part for part in SERVICES[name]["command"]]
        assert here == expected, name


def test_every_process_has_the_environment_it_has_in_the_embedded_stack(tmp_path: Path) -> None:
    image = compose.dockerfile_environment("service")
    for name, value in environment.for_programs(Settings(data_dir=tmp_path), Layout(tmp_path)).items():
        if name in {"TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "PYTHONUNBUFFERED"}:
            assert image[name] == value
    native = programs(tmp_path)
    for name in OURS - {"migrate", "admin"}:
        given = compose.environment_of(SERVICES[name], {"EMBEDDING_THREADS": "3"})
        assert set(native[name].environment) <= set(given), name
        assert given["OMP_NUM_THREADS"] == ("3" if name == "worker" else native[name].environment["OMP_NUM_THREADS"])


def test_every_process_has_as_long_to_stop_as_in_the_embedded_stack(tmp_path: Path) -> None:
    for name, program in programs(tmp_path).items():
        assert seconds(SERVICES[name]["stop_grace_period"]) == program.stop_wait_seconds, name
        assert SERVICES[name].get("stop_signal", "SIGTERM") == f"SIG{program.stop_signal}", name


def test_workers_are_as_many_as_worker_replicas_says() -> None:
    assert SERVICES["worker"]["deploy"]["replicas"] == "${WORKER_REPLICAS:-2}"


def test_every_setting_reaches_the_containers() -> None:
    given = set().union(*(service.get("environment", {}) for service in SERVICES.values()))
    assert {name.upper() for name in Settings.model_fields} - given == OF_THE_EMBEDDED_STACK
    for name in ("api", "dispatcher", "worker"):
        assert set(SERVICES[name]["environment"]) >= compose.OF_OPENTELEMETRY, name


def test_every_setting_of_a_service_is_known() -> None:
    known = {name.upper() for name in Settings.model_fields} | compose.OF_OPENTELEMETRY | {"OMP_NUM_THREADS", "PROMETHEUS_MULTIPROC_DIR"}
    for name in OURS:
        assert set(SERVICES[name]["environment"]) <= known, name


def test_default_of_a_variable_is_the_default_of_its_setting() -> None:
    example = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    own = {"DATABASE_URL", "REDIS_URL", "BROKER_URL", "EMBEDDING_THREADS"}
    found = re.findall(r"\$\{([A-Z_]+):?-([^}]*)\}", compose.FILE.read_text(encoding="utf-8"))
    assert {(name, default) for name, default in found if name not in own} == {
        (name, example[name]) for name in {name for name, _ in found} - own
    }


@needs_compose
@pytest.mark.parametrize(
    "beside",
    [(), ("external.yml",), ("external.yml", "rabbitmq.yml"), ("alerting.yml",)],
    ids=lambda files: "+".join(files) or "alone",
)
def test_compose_takes_the_file(beside: tuple[str, ...]) -> None:
    assert COMPOSE is not None, "docker-compose is required and not installed"
    files = [argument for name in ("docker-compose.yml", *beside) for argument in ("-f", str(FOLDER / name))]
    surroundings = {name: value for name, value in os.environ.items() if name not in compose.interpolated_variables()}
    done = subprocess.run(
        [COMPOSE, *files, "config"],
        env=surroundings | {"LEASE_SECONDS": "33", "WORKER_REPLICAS": "3"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)
    worker = resolved["services"]["worker"]
    assert worker["deploy"]["replicas"] == 3
    assert worker["environment"]["LEASE_SECONDS"] == "33"
    assert worker["environment"]["BATCH_ROWS"] is None
    assert resolved["networks"]["data"]["internal"] is ("external.yml" not in beside)
    assert ("alert_webhook_url" in str(resolved["services"]["alertmanager"])) is ("alerting.yml" in beside)
    mounted = {secret["source"] for secret in resolved["services"]["beat"]["secrets"]}
    assert mounted == {"redis_password"} | ({"rabbitmq_password"} if "rabbitmq.yml" in beside else set())


@needs_compose
def test_compose_refuses_a_misspelled_file(tmp_path: Path) -> None:
    assert COMPOSE is not None, "docker-compose is required and not installed"
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(compose.FILE.read_text(encoding="utf-8").replace("mem_limit: 2g", "memory: 2g"), encoding="utf-8")
    done = subprocess.run([COMPOSE, "-f", str(broken), "config", "-q"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "memory" in done.stderr


def test_password_goes_to_rabbitmq_where_that_of_redis_goes() -> None:
    beside = yaml.safe_load((FOLDER / "rabbitmq.yml").read_text(encoding="utf-8"))
    assert {name for name, service in beside["services"].items() if service["secrets"] == ["rabbitmq_password"]} == {
        name for name, secrets in SECRETS.items() if "redis_password" in secrets
    } - {"redis"}


def test_file_that_alertmanager_is_told_to_read_is_handed_to_it() -> None:
    advice = (FOLDER / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
    beside = yaml.safe_load((FOLDER / "alerting.yml").read_text(encoding="utf-8"))
    named = set(re.findall(r"/run/secrets/(\w+)", advice))
    assert {name: service["secrets"] for name, service in beside["services"].items()} == {"alertmanager": sorted(named)}
    assert beside["secrets"] == {name: {"file": f"../secrets/{name}.txt"} for name in named}
    followed = yaml.safe_load(re.sub(r"^    # ( *(?:webhook_configs|-|send_resolved))", r"    \1", advice, flags=re.MULTILINE))
    (receiver,) = followed["receivers"]
    assert [hook["url_file"] for hook in receiver["webhook_configs"]] == [f"/run/secrets/{name}" for name in named]


def _started_with(name: str) -> set[str]:
    """Return what Compose starts before a service, unless it is told --no-deps."""
    needed = set(SERVICES[name].get("depends_on", {}))
    return needed.union(*map(_started_with, needed))


def test_command_with_external_servers_starts_none_of_the_bundled_ones() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    section = text.partition("## Your own servers")[2].partition("\n## ")[0]
    typed = re.findall(r"^compose (up|run)( .*)$", section, re.MULTILINE)
    started = set()
    for _, arguments in typed:
        words = arguments.partition(" python ")[0].split()
        named = {word for word in words if not word.startswith("-")}
        assert named <= set(SERVICES)
        started |= named if "--no-deps" in words else named.union(*map(_started_with, named))
    assert started == set(SERVICES) - {"postgres", "redis", "admin"}
    assert _started_with("admin") == set(), "`compose run --rm admin` is typed with and without external.yml"
    order = ["app db bootstrap", "app db migrate", "volumes", "api dispatcher worker"]
    assert [word for word, (_, arguments) in zip(order, typed, strict=True) if word not in arguments] == []


# Grafana.


def test_grafana_finds_its_sources_and_dashboards() -> None:
    folder = ROOT / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))["datasources"]
    assert {source["uid"]: source["url"] for source in sources} == {
        "prometheus": "http://prometheus:9090",
        "alertmanager": "http://alertmanager:9093",
    }
    (provider,) = yaml.safe_load((folder / "dashboards" / "nexus.yml").read_text(encoding="utf-8"))["providers"]
    mounts = dict(str(mount).split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    assert mounts["../grafana/dashboards"] == provider["options"]["path"]
    assert mounts["../grafana/provisioning"] == "/etc/grafana/provisioning"


# What is written about it.


def test_deployment_names_every_service_and_no_other() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    checked = text.partition("| service | its check asks |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| (`[^|]+`) \|", checked, re.MULTILINE)))) == {
        name for name, service in SERVICES.items() if "healthcheck" in service
    }
    table = text.partition("| service | what |")[2].partition("\n\n")[0]
    named = {name for cell in re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", cell)}
    assert named == set(SERVICES)
    typed = {
        word
        for command in re.findall(r"^compose (?:up|stop|exec|run)( .*)$", text, re.MULTILINE)
        for word in command.split(" sh ")[0].split(" python ")[0].split()
        if not word.startswith("-")
    }
    assert typed - {"reconcile", "run", "integrity", "verify"} <= set(SERVICES)


def test_deployment_says_the_images_name() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert set(re.findall(r"nexus-cerebro:[\d.]+", text)) == {SERVICES["api"]["image"]}
