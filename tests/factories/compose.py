"""Reads compose/docker-compose.yml as Compose would, and says what an operator should not put up with in it."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

from tests.factories.documents import ROOT

FILE = ROOT / "compose" / "docker-compose.yml"

# Variables of OpenTelemetry's own that reach the containers beside the settings; the SDK of the traces reads them itself.
OF_OPENTELEMETRY = {"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_BSP_SCHEDULE_DELAY"}

_VARIABLE = re.compile(r"\$\$|\$\{([A-Z_][A-Z0-9_]*)(?:(:?-)([^}]*))?\}")
_PINNED = re.compile(r".+:v?\d+\.\d+\.\d+(-[\w.-]+)?")
_LOOPBACK = "127.0.0.1:"
_UNTOUCHABLE = ("/var/run/docker.sock", "/:", "/etc:", "/root", "/proc", "/sys")
_READY = {"service_healthy", "service_completed_successfully"}

Service = dict[str, Any]


def load(text: str | None = None) -> dict[str, Any]:
    """Return the file with its anchors resolved and its variables as they stand."""
    parsed: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8") if text is None else text)
    return parsed


def interpolate(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a part of the file with each variable replaced as Compose does it; what is not set and has no default is empty."""
    if isinstance(value, dict):
        return {name: interpolate(part, environment) for name, part in value.items()}
    if isinstance(value, list):
        return [interpolate(part, environment) for part in value]
    return _VARIABLE.sub(lambda match: _value(match, environment), value) if isinstance(value, str) else value


def _value(match: re.Match[str], environment: Mapping[str, str]) -> str:
    name, operator, default = match.groups()
    if name is None:
        return "$"
    given = environment.get(name)
    return (default or "") if given is None or (not given and operator == ":-") else given


def environment_of(service: Service, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a container of the service has in its environment; a variable without a value is passed on if it is set."""
    given = {name: environment.get(name) if value is None else value for name, value in service.get("environment", {}).items()}
    return {name: str(interpolate(value, environment)) for name, value in given.items() if value is not None}


def interpolated_variables() -> set[str]:
    """Return every variable that the file takes from its surroundings by name, passed on or replaced."""
    document = load()
    named = {match[1] for match in _VARIABLE.finditer(FILE.read_text(encoding="utf-8")) if match[1]}
    passed_on = {
        name for service in document["services"].values() for name, value in service.get("environment", {}).items() if value is None
    }
    return named | passed_on


def ends_by_itself(service: Service) -> bool:
    """Return whether a service does one thing and ends."""
    return service.get("restart") == "no"


def problems(document: dict[str, Any]) -> list[str]:
    """Return what is wrong, one line each that begins with the service; empty when nothing is."""
    found = []
    for name, service in document["services"].items():
        for check in _CHECKS:
            found += [f"{name}: {problem}" for problem in check(service, document)]
    return found


def _image(service: Service, _: dict[str, Any]) -> Iterator[str]:
    if not _PINNED.fullmatch(service.get("image", "")):
        yield f"the image {service.get('image')!r} is not pinned to a version"


def _privileges(service: Service, document: dict[str, Any]) -> Iterator[str]:
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may gain privileges: no-new-privileges is missing"
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities"
    if service.get("read_only") is not True:
        yield "can write its root folder"
    if service.get("init") is not True:
        yield "has no init to reap what it leaves"
    user = str(service.get("user", ""))
    if service is document["services"].get("volumes"):
        if service.get("cap_add") != ["CHOWN"] or service.get("network_mode") != "none":
            yield "has more than it needs for giving volumes away"
    elif user != "${NEXUS_UID:-1000}:${NEXUS_GID:-1000}" or "cap_add" in service:
        yield f"runs as {user or 'root'!r} with {service.get('cap_add', 'nothing')} added"
    if service.get("privileged") or service.get("network_mode") == "host" or service.get("pid") == "host":
        yield "shares the machine's privileges, network or processes"


def _limits(service: Service, _: dict[str, Any]) -> Iterator[str]:
    for name in ("mem_limit", "cpus", "pids_limit"):
        if not service.get(name):
            yield f"has no {name}"
    options = service.get("logging", {}).get("options", {})
    if not options.get("max-size") or not options.get("max-file"):
        yield "may fill the disk with its log"


def _health(service: Service, _: dict[str, Any]) -> Iterator[str]:
    check = service.get("healthcheck")
    if ends_by_itself(service):
        return
    if not check or check.get("disable") or check.get("test", ["NONE"])[0] not in {"CMD", "CMD-SHELL"}:
        yield "has no health check"
    elif not {"interval", "timeout", "retries", "start_period"} <= set(check):
        yield "leaves the patience of its health check to Docker"


def _ports(service: Service, _: dict[str, Any]) -> Iterator[str]:
    for port in service.get("ports", []):
        if not str(port).startswith(_LOOPBACK):
            yield f"publishes {port} beyond this machine"


def _environment(service: Service, _: dict[str, Any]) -> Iterator[str]:
    for name, value in service.get("environment", {}).items():
        is_secret = re.search(r"PASSWORD|SECRET|TOKEN$|API_KEY|SIGNING_KEY", name)
        if is_secret and not name.endswith("_FILE"):
            yield f"{name} is a secret in the environment"
        if isinstance(value, str) and re.search(r"://[^/{}]*:[^/{}]*@", value):
            yield f"{name} holds a password"


def _secrets(service: Service, document: dict[str, Any]) -> Iterator[str]:
    for secret in service.get("secrets", []):
        if not isinstance(secret, str) or secret not in document["secrets"]:
            yield f"the secret {secret!r} is not declared"


def _mounts(service: Service, document: dict[str, Any]) -> Iterator[str]:
    for mount in service.get("volumes", []):
        source, _, rest = str(mount).partition(":")
        if str(mount).startswith(_UNTOUCHABLE):
            yield f"mounts {source} of the machine"
        elif source.startswith("."):
            if not rest.endswith(":ro"):
                yield f"can write {source}"
            if not (FILE.parent / source).exists():
                yield f"mounts {source}, which does not exist"
        elif source not in document["volumes"]:
            yield f"the volume {source} is not declared"
        elif service is not document["services"].get("volumes"):
            if not rest.endswith(":nocopy"):
                yield f"Docker gives the volume {source} to the user of the image: nocopy is missing"
            if f"/volumes/{source}" not in document["services"]["volumes"]["command"]:
                yield f"nobody gives it the volume {source}"
            if "volumes" not in service.get("depends_on", {}):
                yield "does not wait until the volume is its own"


def _order(service: Service, document: dict[str, Any]) -> Iterator[str]:
    needed = service.get("depends_on", {})
    if isinstance(needed, list):
        yield "waits for others to be started, not to be ready"
        return
    for other, how in needed.items():
        wanted = "service_completed_successfully" if ends_by_itself(document["services"][other]) else "service_healthy"
        if how.get("condition") != wanted:
            yield f"waits for {other} wrongly"


def _networks(service: Service, document: dict[str, Any]) -> Iterator[str]:
    for network in service.get("networks", []):
        if network not in document["networks"]:
            yield f"the network {network} is not declared"
    if "network_mode" not in service and not service.get("networks"):
        yield "is in the default network"
    if service.get("networks") == ["data"] and service.get("ports"):
        yield "publishes a port of the inner network"
    if not document["networks"]["data"].get("internal"):
        yield "the network of the servers leads outside"


_CHECKS: tuple[Callable[[Service, dict[str, Any]], Iterator[str]], ...] = (
    _image,
    _privileges,
    _limits,
    _health,
    _ports,
    _environment,
    _secrets,
    _mounts,
    _order,
    _networks,
)


def dockerfile_environment(stage: str, path: Path = ROOT / "compose" / "Dockerfile") -> dict[str, str]:
    """Return the variables that a stage of the Dockerfile sets."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    block = re.split(r"^FROM ", text, flags=re.MULTILINE)
    body = next(part for part in block if part.partition("\n")[0].endswith(f" AS {stage}"))
    return dict(re.findall(r"([A-Z_]+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", body, flags=re.MULTILINE))))
