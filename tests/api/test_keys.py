"""Keys in the real table: issued, trusted, expired, revoked; the command line too."""

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from sqlalchemy import text

from app.bootstrap import Services
from app.cli.keys import keys
from app.errors import InvalidRequest, NotFound, Unauthenticated
from app.identity.models import KeyRole
from app.identity.service import KeyService


@pytest.fixture
def impatient(services: Services) -> KeyService:
    """A key service that asks the database every time."""
    return KeyService(services.database, cache_seconds=0)


def _issue(service: KeyService, role: KeyRole = "agent", agent_id: str | None = "alice", days: int | None = None) -> str:
    return service.create(role=role, name="test", agent_id=agent_id, expires_days=days).secret


def test_issued_key_authenticates_and_is_kept_as_a_digest_only(impatient: KeyService, services: Services) -> None:
    secret = _issue(impatient)
    assert secret.startswith("nxs_agent_")
    assert len(secret.rpartition("_")[2]) == 40
    principal = impatient.authenticate(secret)
    assert (principal.role, principal.agent_id) == ("agent", "alice")
    with services.database.transaction() as connection:
        rows = connection.execute(text("SELECT api_keys::text AS row, last_used_at FROM memory_system.api_keys")).all()
    assert all(secret not in row.row for row in rows)
    assert any(row.last_used_at is not None for row in rows)


@pytest.mark.parametrize("secret", ["", "x", "nxs_agent_" + "a" * 40, "ñ" * 50, "x" * 10_000, "a\0b"])
def test_unknown_key_is_refused(secret: str, impatient: KeyService) -> None:
    with pytest.raises(Unauthenticated):
        impatient.authenticate(secret)


def test_revoked_and_expired_keys_are_refused(impatient: KeyService, services: Services) -> None:
    issued = impatient.create(role="admin", name="test", agent_id=None, expires_days=1)
    assert impatient.authenticate(issued.secret).role == "admin"
    with services.database.transaction() as connection:
        connection.execute(
            text("UPDATE memory_system.api_keys SET expires_at = :at WHERE key_id = :id"),
            {"at": datetime.now(UTC) - timedelta(seconds=1), "id": issued.key.key_id},
        )
    with pytest.raises(Unauthenticated):
        impatient.authenticate(issued.secret)
    second = impatient.create(role="operator", name="test", agent_id=None, expires_days=None)
    revoked_at = impatient.revoke(second.key.key_id).revoked_at
    assert impatient.revoke(second.key.key_id).revoked_at == revoked_at is not None
    with pytest.raises(Unauthenticated):
        impatient.authenticate(second.secret)
    with pytest.raises(NotFound):
        impatient.revoke(uuid4())


def test_cache_serves_known_keys_without_the_database_for_its_time_only(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = KeyService(services.database, cache_seconds=60)
    secret = _issue(patient)
    patient.authenticate(secret)
    with pytest.raises(Unauthenticated):
        patient.authenticate("nxs_wrong")

    lookups = 0
    original = type(services.database).transaction

    def count(*arguments: object, **named: object) -> object:
        nonlocal lookups
        lookups += 1
        return original(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(type(services.database), "transaction", count)
    for _ in range(3):
        patient.authenticate(secret)
        with pytest.raises(Unauthenticated):
            patient.authenticate("nxs_wrong")
    assert lookups == 0
    monkeypatch.setattr("app.identity.service.time.monotonic", lambda: 1e12)
    patient.authenticate(secret)
    assert lookups == 2, "one to find it, one to note that it was used"


def test_guesses_cannot_push_good_keys_out_of_the_cache(services: Services) -> None:
    patient = KeyService(services.database, cache_seconds=60)
    secret = _issue(patient)
    patient.authenticate(secret)
    for number in range(1100):
        with pytest.raises(Unauthenticated):
            patient.authenticate(f"guess {number}")
    assert len(patient._refused._entries) == 1024
    assert len(patient._known._entries) == 1


@pytest.mark.parametrize(
    ("role", "agent_id", "days"),
    [
        ("agent", None, None),
        ("readonly", None, None),
        ("admin", "alice", None),
        ("operator", "alice", None),
        ("agent", "a b", None),
        ("admin", None, 0),
        ("admin", None, 40_000),
    ],
)
def test_key_that_makes_no_sense_is_not_issued(role: KeyRole, agent_id: str | None, days: int | None, impatient: KeyService) -> None:
    with pytest.raises(InvalidRequest):
        _issue(impatient, role, agent_id, days)


@pytest.fixture
def runner(services: Services, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line on the test's database."""
    monkeypatch.setattr("app.cli.keys.quiet_settings", lambda: services.settings)
    return CliRunner()


def test_command_line_creates_lists_and_revokes(runner: CliRunner, impatient: KeyService) -> None:
    made = runner.invoke(keys, ["create", "--role", "readonly", "--agent", "alice", "--name", "reports", "--expires-days", "7", "--json"])
    assert made.exit_code == 0, made.output
    key = json.loads(made.stdout)
    assert impatient.authenticate(key["key"]).role == "readonly"
    listed = runner.invoke(keys, ["list", "--json"])
    (row,) = [row for row in json.loads(listed.stdout) if row["key_id"] == key["key_id"]]
    assert row["state"] == "active"
    assert row["name"] == "reports"
    assert "key" not in row
    assert "key_sha256" not in row
    assert key["key"] not in runner.invoke(keys, ["list"]).output
    assert runner.invoke(keys, ["revoke", key["key_id"]]).exit_code == 0
    with pytest.raises(Unauthenticated):
        impatient.authenticate(key["key"])
    plain = runner.invoke(keys, ["create", "--role", "admin", "--name", "root"])
    assert impatient.authenticate(plain.stdout.strip()).role == "admin"


NAMES_THAT_STEER = ["\x1b[31mred", "a\r\nb", "a\tb", "\u202egnp.exe", "a\u2028b", "\x7f", "a\x9bm", "\u2066x"]


@pytest.mark.parametrize("name", NAMES_THAT_STEER)
def test_name_that_would_steer_a_terminal_is_refused(name: str, impatient: KeyService) -> None:
    with pytest.raises(InvalidRequest, match="control characters"):
        impatient.create(role="operator", name=name, agent_id=None, expires_days=None)


def test_name_in_any_script_is_a_name(impatient: KeyService) -> None:
    for name in ("ключ Ады", "المفتاح", "鍵 🔑", "family 👩‍💻"):
        assert impatient.create(role="operator", name=name, agent_id=None, expires_days=None).key.name == name


@pytest.mark.parametrize("name", NAMES_THAT_STEER)
def test_api_refuses_such_a_name(name: str, client: FlaskClient) -> None:
    answer = client.post("/keys", json={"role": "operator", "name": name})
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_request")
