"""`keys`: issue, list, rotate and revoke API keys from the command line, and show the audit log."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import click

from app.config import load_settings
from app.db import Database
from app.identity.models import ApiKey, IssuedKey, KeyRole
from app.identity.service import KeyService


def _service() -> KeyService:
    return KeyService(Database(load_settings(), "nexus_app", "nexus-keys"), cache_seconds=0)


def _as_json(key: ApiKey) -> dict[str, Any]:
    values = {name: value for name, value in asdict(key).items() if name != "key_sha256"}
    return values | {"state": key.state(datetime.now(UTC))}


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, default=str, ensure_ascii=False))


@click.group()
def keys() -> None:
    """API keys: issue, list, rotate, revoke; the audit log."""


@keys.command()
@click.option("--role", type=click.Choice(get_args(KeyRole)), required=True, help="What the key may do.")
@click.option("--agent", default=None, help="The agent it is bound to; needed for roles agent and readonly.")
@click.option("--name", required=True, help="What people call it.")
@click.option("--expires-days", type=int, default=None, help="Days until it stops working; never by default.")
@click.option("--rate-limit", type=int, default=None, help="Requests it may make in a minute; RATE_LIMIT_PER_MINUTE by default.")
@click.option("--json", "json_output", is_flag=True, help="Print JSON.")
def create(*, role: KeyRole, agent: str | None, name: str, expires_days: int | None, rate_limit: int | None, json_output: bool) -> None:
    """Issue a key and print it; it cannot be shown again."""
    _print_issued(
        _service().create(role=role, name=name, agent_id=agent, expires_days=expires_days, rate_limit_per_minute=rate_limit), json_output
    )


def _print_issued(issued: IssuedKey, json_output: bool) -> None:
    if json_output:
        _print_json({"key": issued.secret} | _as_json(issued.key))
        return
    click.echo(issued.secret)
    click.echo(f"key id {issued.key.key_id}; keep the key now, it is not stored and cannot be shown again", err=True)


@keys.command("list")
@click.option("--json", "json_output", is_flag=True, help="Print JSON.")
def list_keys(json_output: bool) -> None:
    """List every key, oldest first."""
    found = _service().list_keys()
    if json_output:
        _print_json([_as_json(key) for key in found])
        return
    now = datetime.now(UTC)
    for key in found:
        last_used = "never used" if key.last_used_at is None else f"last used {key.last_used_at:%Y-%m-%d %H:%M}Z"
        click.echo(f"{key.key_id}  {key.role:<8}  {key.agent_id or '-':<24}  {key.state(now):<7}  {last_used}  {key.name}")


@keys.command()
@click.argument("key_id", type=click.UUID)
@click.option("--json", "json_output", is_flag=True, help="Print JSON.")
def revoke(key_id: UUID, json_output: bool) -> None:
    """Revoke a key; running processes follow within AUTHENTICATION_CACHE_SECONDS."""
    key = _service().revoke(key_id)
    if json_output:
        _print_json(_as_json(key))
        return
    click.echo(f"revoked {key.key_id} ({key.name})")


@keys.command()
@click.argument("key_id", type=click.UUID)
@click.option(
    "--grace-seconds", type=click.IntRange(0, 604_800), default=0, show_default=True, help="How long the old key goes on working."
)
@click.option("--json", "json_output", is_flag=True, help="Print JSON.")
def rotate(key_id: UUID, grace_seconds: int, json_output: bool) -> None:
    """Issue a key like another one, print it, and let that one end."""
    _print_issued(_service().rotate(key_id, grace_seconds), json_output)


@keys.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many entries.")
@click.option("--json", "json_output", is_flag=True, help="Print JSON.")
def audit(limit: int, json_output: bool) -> None:
    """List administrative actions, the latest first: keys, agents forgotten, dead rows replayed."""
    found = _service().audit(limit)
    if json_output:
        _print_json([asdict(entry) for entry in found])
        return
    for entry in found:
        by = entry.key_id or "command line"
        click.echo(f"{entry.at:%Y-%m-%d %H:%M:%S}Z  {by!s:<36}  {entry.action:<16}  {entry.subject or '-'}  {json.dumps(entry.details)}")
