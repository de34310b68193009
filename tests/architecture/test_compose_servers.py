"""PostgreSQL and Redis in containers: made and configured as the embedded ones, and of versions that are safe."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from app import redis_versions
from app.stack import postgres, redis_server
from app.stack.layout import Layout
from app.stack.redis_server import RedisBinary
from tests.factories import compose
from tests.factories.documents import ROOT

FOLDER = ROOT / "compose"
SERVICES: dict[str, compose.Service] = compose.load()["services"]


def _settings_of(text: str) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines if line)}


def test_postgresql_is_configured_as_the_embedded_one() -> None:
    here = _settings_of((FOLDER / "postgres" / "postgresql.conf").read_text(encoding="utf-8"))
    embedded = _settings_of(postgres._CONFIGURATION.format(port=5432, shared_memory="posix", memory_mb=768, cache_mb=1536))
    assert here.keys() - embedded.keys() == {"hba_file"}
    assert embedded.keys() - here.keys() == {"unix_socket_directories"}
    differing = {name for name in here.keys() & embedded.keys() if here[name] != embedded[name]}
    assert differing == {"listen_addresses"}
    # A quarter of what the container has, as of the machine in the embedded stack.
    assert SERVICES["postgres"]["mem_limit"] == "3g"
    rules = [line.split() for line in (FOLDER / "postgres" / "pg_hba.conf").read_text().splitlines() if line and line[0] != "#"]
    assert {rule[-1] for rule in rules} == {"scram-sha-256"}


def test_postgresql_is_made_as_the_embedded_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[list[str]] = []

    def note(_user: object, command: list[str], *_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(postgres, "_run_as", note)
    postgres.Postgres(Layout(tmp_path), lambda _: None)._initdb(None, tmp_path, tmp_path)
    arguments = shlex.split(SERVICES["postgres"]["environment"]["POSTGRES_INITDB_ARGS"])
    # The image names the user and hands the password over by itself.
    of_the_image = ("-D", str(tmp_path), "--username", "--pwfile", "--no-instructions")
    assert arguments == [part for part in ran[0][1:] if not part.startswith(of_the_image)]


def _directives(text: str) -> set[str]:
    return {line.replace('"', "") for line in text.splitlines() if line and line[0] != "#"}


def test_redis_is_configured_as_the_embedded_one(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    binary = RedisBinary(Path("redis-server"), "redis", _redis_version())
    written = redis_server.write_configuration(layout, 6379, "secret", binary).read_text(encoding="utf-8")
    hashed = re.search(r"#([0-9a-f]{64})", written)
    assert hashed is not None
    embedded = _directives(written.replace(hashed[1], "{password}").replace(str(layout.redis), "/data"))
    here = _directives((FOLDER / "redis" / "redis.conf").read_text(encoding="utf-8"))
    users = _directives((FOLDER / "redis" / "users.acl").read_text(encoding="utf-8"))
    assert users == {line for line in embedded if line.startswith("user ")}
    assert embedded - here - users == {"bind 127.0.0.1", "maxmemory 256mb", "set-proc-title no"}
    assert here - embedded == {"bind * -::*"}


def _redis_version() -> tuple[int, ...]:
    match = re.fullmatch(r"redis:(\d+)\.(\d+)\.(\d+)-\w+", SERVICES["redis"]["image"])
    assert match is not None
    return tuple(map(int, match.groups()))


def test_redis_has_its_security_fixes() -> None:
    assert redis_versions.security_note("redis", _redis_version()) is None
    # CVE-2026-23479 is closed from here on.
    assert _redis_version() >= (8, 6, 3)


def test_postgresql_is_of_the_embedded_ones_major() -> None:
    match = re.fullmatch(r"pgvector/pgvector:[\d.]+-pg(\d+)-\w+", SERVICES["postgres"]["image"])
    assert match is not None
    version = subprocess.run([str(postgres.binaries() / "postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    assert f" {match[1]}." in version
