"""`keys`: issue, list, rotate and revoke API keys from the command line, and show the audit log."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import click

from app.cli.command import Group
from app.cli.console import json_option, make_table, print_json, print_table
from app.cli.services import quiet_settings
from app.db import Database
from app.errors import InvalidRequest
from app.identity.models import ApiKey, IssuedKey, KeyRole
from app.identity.service import KeyService, check_new_key


def _service() -> KeyService:
    return KeyService(Database(quiet_settings(), "nexus_app", "nexus-keys"), cache_seconds=0)


def _as_json(key: ApiKey) -> dict[str, Any]:
    values = {name: value for name, value in asdict(key).items() if name != "key_sha256"}
    return values | {"state": key.state(datetime.now(UTC))}


@click.group(cls=Group)
def keys() -> None:
    """API keys: issue, list, rotate, revoke; the audit log."""


@keys.command(examples=["keys create --role agent --agent ada --name 'the laptop of ada'", "keys create --role operator --name dashboard"])
@click.option("--role", type=click.Choice(get_args(KeyRole)), required=True, help="What the key may do.")
@click.option("--agent", default=None, help="The agent it is bound to; needed for roles agent and readonly.")
@click.option("--name", required=True, help="What people call it.")
@click.option("--expires-days", type=int, default=None, help="Days until it stops working; never by default.")
@click.option("--rate-limit", type=int, default=None, help="Requests it may make in a minute; RATE_LIMIT_PER_MINUTE by default.")
@json_option
def create(*, role: KeyRole, agent: str | None, name: str, expires_days: int | None, rate_limit: int | None, as_json: bool) -> None:
    """Issue a key and print it; it cannot be shown again."""
    try:
        check_new_key(role, name, agent, expires_days, rate_limit)
    except InvalidRequest as error:
        raise click.UsageError(error.message) from error
    _print_issued(
        _service().create(role=role, name=name, agent_id=agent, expires_days=expires_days, rate_limit_per_minute=rate_limit), as_json
    )


def _print_issued(issued: IssuedKey, as_json: bool) -> None:
    if as_json:
        print_json({"key": issued.secret} | _as_json(issued.key))
        return
    click.echo(issued.secret)
    click.echo(f"key id {issued.key.key_id}; keep the key now, it is not stored and cannot be shown again", err=True)


@keys.command("list", examples=["keys list"])
@json_option
def list_keys(as_json: bool) -> None:
    """List every key, oldest first."""
    found = _service().list_keys()
    if as_json:
        print_json([_as_json(key) for key in found])
        return
    now = datetime.now(UTC)
    table = make_table("key id", "role", "agent", "state", "expires", "last used", "name")
    for key in found:
        times = ("never" if at is None else f"{at:%Y-%m-%d %H:%M}Z" for at in (key.expires_at, key.last_used_at))
        table.add_row(str(key.key_id), key.role, key.agent_id or "-", key.state(now), *times, key.name)
    print_table(table)


_key_id = click.argument("key_id", type=click.UUID, help="Its id, as `keys list` shows it.")


@keys.command(examples=["keys revoke KEY_ID"])
@_key_id
@json_option
def revoke(key_id: UUID, as_json: bool) -> None:
    """Revoke a key; running processes follow within AUTHENTICATION_CACHE_SECONDS."""
    key = _service().revoke(key_id)
    if as_json:
        print_json(_as_json(key))
        return
    click.echo(f"revoked {key.key_id} ({key.name})")


@keys.command(examples=["keys rotate KEY_ID --grace-seconds 3600"])
@_key_id
@click.option(
    "--grace-seconds", type=click.IntRange(0, 604_800), default=0, show_default=True, help="How long the old key goes on working."
)
@json_option
def rotate(key_id: UUID, grace_seconds: int, as_json: bool) -> None:
    """Issue a key like another one, print it, and let that one end."""
    _print_issued(_service().rotate(key_id, grace_seconds), as_json)


@keys.command(examples=["keys audit --limit 10 --json"])
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many entries.")
@json_option
def audit(limit: int, as_json: bool) -> None:
    """List administrative actions, the latest first: keys, agents forgotten, dead rows replayed."""
    found = _service().audit(limit)
    if as_json:
        print_json([asdict(entry) for entry in found])
        return
    table = make_table("at", "by", "action", "subject", "details")
    for entry in found:
        by = str(entry.key_id or "command line")
        table.add_row(f"{entry.at:%Y-%m-%d %H:%M:%S}Z", by, entry.action, entry.subject or "-", json.dumps(entry.details))
    print_table(table)
