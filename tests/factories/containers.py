"""Runs the services of compose/docker-compose.yml as processes of this machine, each with what its container would have and no more."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.config import Settings
from app.stack import ports, postgres, redis_server
from app.stack.os_user import OsUser, let_through, server_user
from app.stack.redis_server import RedisBinary
from app.stack.secret_files import write_missing
from tests.factories import compose
from tests.factories.documents import ROOT
from tests.factories.processes import LocalProcess, wait_until

_HEALTH_SECONDS = 30
_MADE_OF = {"redis": "redis", "postgres": "postgresql"}
# Every port that a service has inside its container.
_PORTS = {"5432": "postgres", "6379": "redis", "8002": "api", "5555": "flower", "8003": "mcp", "9808": "celery-exporter"}
_HOSTS = ("postgres", "redis", "api")


class Containers:
    """The services of the file, on ports and in folders of their own.

    What stands in the file is run as it stands there, but for the places: names of hosts become 127.0.0.1, and the folders of a
    container become folders below this one. Each service sees a folder with its own secrets, and an environment of nothing but
    what the image and the file say.

    Args:
        folder: Where everything lies; its parents must let other users through, for PostgreSQL does not run as root.
        surroundings: What `.env` would hold.
        exporter_python: The interpreter of celery-exporter's own environment.
    """

    def __init__(self, folder: Path, surroundings: Mapping[str, str], exporter_python: Path) -> None:
        self._folder = folder
        self._exporter_python = exporter_python
        self._document = compose.load()
        self.ports = {name: ports.choose(0) for name in _PORTS.values()}
        self._surroundings = {**surroundings, "MCP_PORT": str(self.ports["mcp"])}
        self._running: dict[str, LocalProcess] = {}
        self._secrets = Settings(secrets_dir=folder / "secrets")
        write_missing(self._secrets)
        if not (scraper := folder / "secrets" / "metrics_api_key.txt").exists():
            scraper.write_text("not needed here\n", encoding="utf-8")
        (folder / "logs").mkdir()
        self._make_tools()

    def secret(self, name: str) -> str:
        """Return what a secret file holds."""
        return self._secrets.secret(name)

    def start(self, name: str) -> None:
        """Start a service and return at once."""
        service = self._document["services"][name]
        root = self._root(name, service)
        if name == "postgres":
            self._start_postgres(service, root)
            return
        self._running[name] = LocalProcess(name, self._command(name, service, root), self._folder / "logs", {})
        self._running[name].start()

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a service that ends by itself, with another command if one is given, and return how it ended."""
        service = dict(self._document["services"][name])
        if command:
            service["command"] = list(command)
        whole = self._command(name, service, self._root(name, service))
        return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    def run_without(self, name: str, secret: str) -> subprocess.CompletedProcess[str]:
        """Run a service whose container lacks a secret until it ends, and return how it ended."""
        file = self._root(name, self._document["services"][name]) / "run/secrets" / secret
        kept = file.read_bytes()
        file.unlink()
        try:
            return self.run(name)
        finally:
            file.write_bytes(kept)

    def tool(self, name: str) -> str:
        """Return the path of a program that the servers' images have."""
        return str(self._folder / "bin" / name)

    @property
    def running(self) -> set[str]:
        """The services that were started and not stopped."""
        return set(self._running)

    def health(self, name: str, **instead: str) -> tuple[int, str]:
        """Return exit status and output of a service's own health check, with other variables of its environment if some are given."""
        service = self._document["services"][name]
        kind, *test = compose.interpolate(service["healthcheck"]["test"], self._surroundings)
        words = ["/bin/sh", "-c", *test] if kind == "CMD-SHELL" else test
        command = self._command(
            name,
            {**service, "entrypoint": [], "command": words, "environment": service.get("environment", {}) | instead},
            self._root(name, service),
        )
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_HEALTH_SECONDS, check=False)
        return done.returncode, done.stdout + done.stderr

    def wait_for(self, name: str, seconds: float = 120) -> None:
        """Return once the service's own health check is content."""
        seen: tuple[int, str] = (1, "")

        def is_content() -> bool:
            nonlocal seen
            assert self._running[name].is_running, f"{name} ended: {self.log(name)}"
            seen = self.health(name)
            return seen[0] == 0

        wait_until(is_content, seconds, lambda: f"{name} is not healthy: {seen}; it says {self.log(name)}", every=0.3)

    def stop(self, name: str) -> bool:
        """Stop a service as Docker does, and return whether it ended by itself within its time."""
        service = self._document["services"][name]
        process = self._running.pop(name)
        number = signal.Signals[service.get("stop_signal", "SIGTERM")]
        process.send(number)
        try:
            wait_until(lambda: not process.is_running, int(service.get("stop_grace_period", "10s").removesuffix("s")), name)
        except AssertionError:
            return False
        finally:
            process.stop()
        return True

    def close(self) -> None:
        """Stop everything, the servers last."""
        for name in sorted(self._running, key=lambda name: name in _MADE_OF):
            self._running.pop(name).stop(20, signal.SIGINT if name == "postgres" else signal.SIGTERM)

    def log(self, name: str) -> str:
        """Return the end of what a service wrote."""
        return self._running[name].logs()[-3000:].decode(errors="replace")

    def _root(self, name: str, service: compose.Service) -> Path:
        """Return the folder that stands for the container's root, with the service's secrets and configuration in it."""
        root = self._folder / "roots" / name
        if root.exists():
            return root
        for folder in ("run/secrets", "tmp/nexus/metrics/api", "data", "var/lib/beat"):
            (root / folder).mkdir(parents=True)
        for secret in service.get("secrets", []):
            shutil.copy(self._folder / "secrets" / f"{secret}.txt", root / "run/secrets" / secret)
        if name in _MADE_OF:
            self._copy_configuration(name, root)
        return root

    def _copy_configuration(self, name: str, root: Path) -> None:
        target = root / "etc" / _MADE_OF[name]
        shutil.copytree(ROOT / "compose" / name, target)
        for file in target.iterdir():
            text = self._here(file.read_text(encoding="utf-8"), root).replace("dir /data", f"dir {root}/data")
            if name == "redis" and self._redis.version[:2] in redis_server._WITHOUT_SETINFO:
                text = text.replace(f" {redis_server._SAYS_ITS_LIBRARY}", "")
            file.write_text(text, encoding="utf-8")

    def _command(self, name: str, service: compose.Service, root: Path) -> list[str]:
        """Return the command in an environment of nothing but what the container has."""
        image = "celery-exporter" if name == "celery-exporter" else "service"
        of_the_image = compose.dockerfile_environment(image) if "build" in service else {}
        given = {**of_the_image, **compose.environment_of(service, self._surroundings)}
        here = {variable: self._here(value, root) for variable, value in given.items()}
        if "METRICS_PORT" in here:  # Each container has that port for itself.
            here["METRICS_PORT"] = str(self.ports.setdefault(f"metrics of {name}", ports.choose(0)))
        interpreter = self._exporter_python if name == "celery-exporter" else Path(sys.executable)
        here["PATH"] = f"{interpreter.parent}:{self._folder / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        words = [*service.get("entrypoint", []), *service.get("command", [])]
        whole = [self._here(str(word), root) for word in compose.interpolate(words, self._surroundings)]
        if name == "celery-exporter":
            whole = [str(ROOT / "compose" / word) if word == "celery_exporter.py" else word for word in whole]
        return ["/usr/bin/env", "-i", *(f"{variable}={value}" for variable, value in here.items()), *whole]

    def _here(self, text: str, root: Path) -> str:
        """Return a text of the file with the places of this machine."""
        for host in _HOSTS:
            text = re.sub(rf"(//|@){host}:", r"\g<1>127.0.0.1:", text)
        for port, name in _PORTS.items():
            text = re.sub(rf"(?<![\w.]){port}(?!\w)", str(self.ports[name]), text)
        text = text.replace("0.0.0.0", "127.0.0.1").replace("bind * -::*", "bind 127.0.0.1")
        text = text.replace("listen_addresses = '*'", "listen_addresses = '127.0.0.1'")
        return re.sub(r"(?<![\w/])/(run/secrets|tmp|var/lib/beat|etc/redis|etc/postgresql)(?=[/\s'\")]|$)", rf"{root}/\1", text)

    def _make_tools(self) -> None:
        """Make a folder with the programs that the servers' images have."""
        tools = self._folder / "bin"
        tools.mkdir()
        self._redis: RedisBinary = redis_server.newest_binary()
        of_the_wheel = next(binary.path.parent for binary in redis_server.binaries() if (binary.path.parent / "redis-cli").exists())
        (tools / "redis-server").symlink_to(self._redis.path)
        (tools / "redis-cli").symlink_to(of_the_wheel / "redis-cli")
        for program in ("postgres", "initdb", "pg_isready", "pg_dump", "pg_restore", "psql"):
            (tools / program).symlink_to(postgres.binaries() / program)

    def _start_postgres(self, service: compose.Service, root: Path) -> None:
        """Do what the image's entry point does: make the cluster with the file's arguments, then run the file's command."""
        data = root / "data" / "cluster"
        user = server_user(data)
        data.mkdir(mode=0o700)
        if user is not None:
            let_through(user, data, lambda _: None)
            self._give(user, root)
        environment = {"PATH": f"{self._folder / 'bin'}:/usr/bin:/bin", "LC_ALL": "C", "PGDATA": str(data)}
        arguments = service["environment"]["POSTGRES_INITDB_ARGS"]
        password = root / "run/secrets/postgres_password"
        account: dict[str, Any] = {"user": user.uid, "group": user.gid, "extra_groups": []} if user else {}
        made = f"initdb --username=postgres --pwfile={password} {arguments}"
        subprocess.run(["/bin/sh", "-c", made], env=environment, cwd="/", check=True, capture_output=True, timeout=60, **account)
        command = ["/usr/bin/env", "-i", f"PATH={environment['PATH']}", f"PGDATA={data}"]
        # Of this image alone: its sockets lie in a folder that others could have.
        command += [self._here(word, root) for word in service["command"]] + ["-c", "unix_socket_directories="]
        self._running["postgres"] = LocalProcess("postgres", command, self._folder / "logs", {}, user)
        self._running["postgres"].start()

    def _give(self, user: OsUser, root: Path) -> None:
        for path in (root, *root.rglob("*")):
            shutil.chown(path, user.uid, user.gid)
