"""Secrets changed while the stack runs: the file, the server that checks it, and the processes that hold the old one."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from app.config import ADMIN_KEY_SECRET, CONSOLE_KEY_SECRET, REDIS_SECRET, ROLE_SECRETS, Role, Settings
from app.database_setup import register_key, set_password
from app.db import Database
from app.errors import NotFound, Unauthenticated
from app.identity.service import KeyService
from app.stack import control, environment, redis_server, secret_files
from app.stack.dump import superuser_url
from app.stack.layout import Layout

_ROLES: dict[str, Role] = {secret: role for role, secret in ROLE_SECRETS.items()}
_FOLLOW = frozenset({"postgres", "mcp", "api"})
"""Programs that need no restart for another password of Redis: they do not log in there, or read the file at each connection."""


@dataclass(frozen=True)
class Rotated:
    """What was done.

    Attributes:
        names: The secrets that have another value now.
        restarted: Programs that were restarted because they held an old one.
        left_to_do: What is not this stack's to do, a sentence each.
    """

    names: list[str]
    restarted: list[str]
    left_to_do: list[str] = field(default_factory=list)


def rotate(settings: Settings, names: Sequence[str], report: Callable[[str], None]) -> Rotated:
    """Give secrets new random values: write each file, tell the server, and restart what holds the old value.

    It may be called again after it failed or was killed; so may `stack up`, which tells its servers what the files hold.

    Args:
        settings: Of this process. Where no stack runs, the files are written and count from its next start.
        names: Of ROTATABLE_SECRETS.
        report: Is told, in one line each, what happens.

    Raises:
        StackError: A server refused the change; its secret is the old one again.
        ConfigurationError: A secret has no old value.
    """
    running = control.attach(settings)
    done: list[str] = []
    restart: set[str] = set()
    left: list[str] = []
    for name in names:
        if name in _ROLES:
            left += _database_password(settings, running, _ROLES[name])
        elif name == REDIS_SECRET:
            left += _redis_password(settings, running, restart)
        elif name == CONSOLE_KEY_SECRET:
            # The API reads it at each page of the console.
            _renew(settings, name)
        else:
            _api_key(settings, running, name)
            # Prometheus reads its key at each scrape.
            if running is not None and name == ADMIN_KEY_SECRET:
                restart.add("flower")
        done.append(name)
        report(f"{name} is changed")
    restarted = control.restart(settings, sorted(restart), report) if restart else []
    return Rotated(done, restarted, left)


def _renew(settings: Settings, name: str) -> str:
    """Write a new random value into a secret's file, and return the old one."""
    old = settings.secret(name)
    secret_files.put(settings.secret_path(name), secret_files.new_value(name))
    return old


def _database_password(settings: Settings, running: Settings | None, role: Role) -> list[str]:
    name = ROLE_SECRETS[role]
    if environment.is_given(settings, "database_url"):
        _renew(settings, name)
        return [
            f"{name}: run `python -m app db bootstrap` now, which tells the server of DATABASE_URL; until then no new connection is made"
        ]
    old = _renew(settings, name)
    if running is not None:
        try:
            set_password(running, superuser_url(running), role)
        except BaseException:
            secret_files.put(settings.secret_path(name), old)
            raise
    return []


def _redis_password(settings: Settings, running: Settings | None, restart: set[str]) -> list[str]:
    old = _renew(settings, REDIS_SECRET)
    if not environment.needs_embedded_redis(settings):
        return [f"{REDIS_SECRET}: give it to the users of REDIS_URL and BROKER_URL, then restart every process"]
    if running is not None:
        try:
            redis_server.change_password(Layout(running.data_dir), old, settings.secret(REDIS_SECRET))
        except BaseException:
            secret_files.put(settings.secret_path(REDIS_SECRET), old)
            raise
        programs = control.status(settings).processes
        restart |= {program.name for program in programs if program.pid} - _FOLLOW
    return []


def _api_key(settings: Settings, running: Settings | None, name: str) -> None:
    target = running or settings
    if running is None and not environment.is_given(settings, "database_url"):
        raise control.none_runs(settings)
    database = Database(target, "nexus_app", "nexus secrets")
    try:
        keys = KeyService(database, cache_seconds=0)
        old, new = settings.secret(name), secret_files.new_value(name)
        # The key counts before anybody can read it: who tried it earlier would be refused for AUTHENTICATION_CACHE_SECONDS.
        register_key(target, name, new)
        secret_files.put(settings.secret_path(name), new)
        with suppress(NotFound, Unauthenticated):  # It was revoked before, or never registered: it opens nothing.
            keys.revoke(keys.authenticate(old).key_id)
    finally:
        database.close()
