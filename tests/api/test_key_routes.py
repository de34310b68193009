"""Keys over HTTP: issued, listed, rotated, revoked, limited; and the audit log of it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.bootstrap import Services, build_services
from app.config import Settings
from app.errors import Conflict
from app.factory import create_app
from app.identity.service import KeyService
from tests.api.conftest import Caller
from tests.factories.encoder import FakeEncoder
from tests.factories.statements import Sql


@pytest.fixture
def admin(services: Services, monkeypatch: pytest.MonkeyPatch, caller: Callable[..., Caller]) -> Caller:
    """An administrator, at a service that asks the database for each key each time."""
    monkeypatch.setattr(KeyService, "_find", _uncached(KeyService._find))
    return caller("admin")


def _uncached(find: Any) -> Any:
    def find_anew(self: KeyService, key_sha256: bytes, patience_seconds: float) -> Any:
        self._known._entries.clear()
        self._refused._entries.clear()
        return find(self, key_sha256, patience_seconds)

    return find_anew


def with_key(admin: Caller, key: str) -> Caller:
    return Caller(admin.client, key)


def test_key_is_issued_used_listed_and_revoked(admin: Caller) -> None:
    answer = admin.post("/keys", {"role": "agent", "name": "Ada's", "agent_id": "ada", "expires_days": 3, "rate_limit_per_minute": 100})
    assert answer.status_code == 201
    made = answer.get_json()
    assert made["key"].startswith("nxs_agent_")
    assert (made["state"], made["agent_id"], made["rate_limit_per_minute"]) == ("active", "ada", 100)
    assert datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC) > timedelta(days=2)
    ada = with_key(admin, made["key"])
    assert ada.post("/memory/action", {"content": "x"}).get_json()["agent_id"] == "ada"
    listed = {item["key_id"]: item for item in admin.get("/keys").get_json()["items"]}
    assert listed[made["key_id"]]["last_used_at"] is not None
    assert "key" not in listed[made["key_id"]]
    assert made["key"] not in admin.get("/keys").get_data(as_text=True)
    assert admin.delete(f"/keys/{made['key_id']}").get_json()["state"] == "revoked"
    assert ada.get("/memory/episodic").status_code == 401


def test_rotated_key_goes_on_for_its_grace_only(admin: Caller, sql: Sql) -> None:
    made = admin.post("/keys", {"role": "readonly", "name": "r", "agent_id": "ada"}).get_json()
    rotated = admin.post(f"/keys/{made['key_id']}/rotate", {"grace_seconds": 60})
    assert rotated.status_code == 201
    new = rotated.get_json()
    assert (new["role"], new["agent_id"], new["name"]) == ("readonly", "ada", "r")
    for key in (made["key"], new["key"]):
        assert with_key(admin, key).get("/memory/episodic").status_code == 200
    # One key has one successor, however often it is asked for one.
    again = admin.post(f"/keys/{made['key_id']}/rotate", {"grace_seconds": 60})
    assert (again.status_code, "rotated already" in again.get_json()["detail"]) == (409, True)
    sql("UPDATE memory_system.api_keys SET expires_at = now() WHERE key_id = %s", made["key_id"])
    assert with_key(admin, made["key"]).get("/memory/episodic").status_code == 401
    assert admin.post(f"/keys/{made['key_id']}/rotate", {}).status_code == 409
    newest = admin.post(f"/keys/{new['key_id']}/rotate", {}).get_json()
    assert with_key(admin, new["key"]).get("/memory/episodic").status_code == 401
    assert with_key(admin, newest["key"]).get("/memory/episodic").status_code == 200


def test_last_administrator_cannot_lock_everybody_out(admin: Caller, sql: Sql) -> None:
    sql("UPDATE memory_system.api_keys SET revoked_at = now() WHERE name <> 'test'")
    (mine,) = [item for item in admin.get("/keys").get_json()["items"] if item["role"] == "admin" and item["state"] == "active"]
    refused = admin.delete(f"/keys/{mine['key_id']}")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "conflict")
    other = admin.post("/keys", {"role": "admin", "name": "other"}).get_json()
    assert admin.delete(f"/keys/{mine['key_id']}").status_code == 200
    assert admin.get("/keys").status_code == 401
    assert with_key(admin, other["key"]).get("/keys").status_code == 200


def test_key_that_expires_is_no_other_administrator(admin: Caller, sql: Sql) -> None:
    """Rotated with grace, the old key works for a while: with it the new one must not be revoked."""
    sql("UPDATE memory_system.api_keys SET revoked_at = now() WHERE name <> 'test'")
    (mine,) = [item for item in admin.get("/keys").get_json()["items"] if item["role"] == "admin" and item["state"] == "active"]
    new = admin.post(f"/keys/{mine['key_id']}/rotate", {"grace_seconds": 60}).get_json()
    assert admin.delete(f"/keys/{new['key_id']}").status_code == 409
    assert with_key(admin, new["key"]).get("/keys").status_code == 200


def test_two_administrators_who_revoke_each_other_at_once_leave_one(services: Services, sql: Sql) -> None:
    for _ in range(10):
        sql("UPDATE memory_system.api_keys SET revoked_at = now() WHERE revoked_at IS NULL")
        made = [services.keys.create(role="admin", name=name, agent_id=None, expires_days=None).key.key_id for name in "ab"]
        gate = threading.Barrier(2)

        def revoke(target: UUID, by: UUID, gate: threading.Barrier = gate) -> None:
            gate.wait()
            with suppress(Conflict):
                services.keys.revoke(target, by)

        threads = [threading.Thread(target=revoke, args=pair) for pair in (made, made[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sql.one("SELECT count(*) FROM memory_system.api_keys WHERE role = 'admin' AND revoked_at IS NULL") == 1


def test_every_act_is_in_the_audit_log_without_secrets(admin: Caller) -> None:
    made = admin.post("/keys", {"role": "operator", "name": "op"}).get_json()
    rotated = admin.post(f"/keys/{made['key_id']}/rotate", {}).get_json()
    admin.delete(f"/keys/{rotated['key_id']}")
    admin.delete("/agents/nobody")
    text = admin.get("/audit").get_data(as_text=True)
    entries = admin.get("/audit").get_json()["items"]
    assert [(entry["action"], entry["subject"]) for entry in entries[:4]] == [
        ("forget agent", "nobody"),
        ("revoke key", rotated["key_id"]),
        ("rotate key", made["key_id"]),
        ("create key", made["key_id"]),
    ]
    assert len({entry["key_id"] for entry in entries[:4]}) == 1
    for secret in (made["key"], rotated["key"], admin.key):
        assert secret not in text
    assert [entry["audit_id"] for entry in admin.get(f"/audit?limit=1&before={entries[1]['audit_id']}").get_json()["items"]] == [
        entries[2]["audit_id"]
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"role": "agent", "name": "x"},
        {"role": "admin", "name": "x", "agent_id": "ada"},
        {"role": "root", "name": "x"},
        {"role": "admin", "name": " "},
        {"role": "admin"},
        {"role": "admin", "name": "x", "expires_days": 0},
        {"role": "admin", "name": "x", "rate_limit_per_minute": 0},
        {"role": "agent", "name": "x", "agent_id": "a b"},
        {"role": "admin", "name": "x", "key": "mine"},
    ],
)
def test_key_that_makes_no_sense_is_refused(body: dict[str, Any], admin: Caller) -> None:
    assert admin.post("/keys", body).status_code == 422
    assert admin.delete("/keys/00000000-0000-4000-8000-000000000001").status_code == 404
    assert admin.post("/keys/00000000-0000-4000-8000-000000000001/rotate", {"grace_seconds": 604_801}).status_code == 422


@pytest.mark.parametrize("role", ["agent", "readonly", "operator"])
def test_nobody_else_manages_keys(role: str, admin: Caller, caller: Callable[..., Caller]) -> None:
    other = caller(role, "ada" if role != "operator" else None)
    assert other.post("/keys", {"role": "admin", "name": "x"}).status_code == 403
    assert other.get("/keys").status_code == other.get("/audit").status_code == 403


def test_limit_of_a_key_is_kept_and_said(admin: Caller, services: Services) -> None:
    limited = with_key(admin, admin.post("/keys", {"role": "admin", "name": "x", "rate_limit_per_minute": 3}).get_json()["key"])
    statuses = [limited.get("/keys").status_code for _ in range(5)]
    # A minute may end in between.
    assert statuses.count(200) in (3, 4)
    refused = limited.get("/keys")
    if refused.status_code == 429:
        assert refused.get_json()["code"] == "rate_limited"
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert admin.get("/keys").status_code == 200


@pytest.fixture
def two_processes(database_settings: Settings, encoder: FakeEncoder) -> Iterator[list[Services]]:
    """Two API processes whose keys may make four requests a minute."""
    limited = database_settings.model_copy(update={"rate_limit_per_minute": 4})
    built = [build_services(limited, load=lambda _: encoder) for _ in range(2)]
    yield built
    for one in built:
        one.close()


def test_default_limit_holds_over_processes_and_in_each_without_redis(
    two_processes: list[Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.identity.rate_limit.time.time", lambda: 1_800_000_030.0)
    key = two_processes[0].keys.create(role="admin", name="x", agent_id=None, expires_days=None).secret
    clients = [create_app(one.settings, one).test_client() for one in two_processes]

    def statuses() -> list[int]:
        return [clients[number % 2].get("/keys", headers={"X-API-Key": key}).status_code for number in range(8)]

    assert statuses() == [200] * 4 + [429] * 4
    for one in two_processes:
        monkeypatch.setattr(one.rate_limiter._redis, "attempt", lambda *_: None)
    assert statuses() == [200] * 8, "each counts by itself"
    assert statuses() == [429] * 8
