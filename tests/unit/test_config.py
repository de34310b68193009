"""Settings: read once, all problems at once, secrets only from files, credentials added where they belong."""

from pathlib import Path

import pytest
from kombu.connection import Connection
from pydantic import ValidationError

from app.config import ALL_SECRETS, ROLE_SECRETS, Settings, load_settings
from app.errors import ConfigurationError


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name in ALL_SECRETS:
        (tmp_path / f"{name}.txt").write_text(f" {name}-value \n")
    return tmp_path


def test_every_problem_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PORT": "70000", "LEASE_SECONDS": "-1", "LOG_LEVEL": "LOUD", "API_THREADS": "many"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    for name in ("PORT", "LEASE_SECONDS", "LOG_LEVEL", "API_THREADS"):
        assert name in raised.value.message


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"DATABASE_URL": "mysql://h/d"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://h:5432"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://nexus_app:hunter2@h/d"}, "must not name a user"),
        ({"LEASE_SECONDS": "10", "HEARTBEAT_SECONDS": "6"}, "HEARTBEAT_SECONDS"),
        ({"CHUNK_TOKENS": "64", "CHUNK_OVERLAP_TOKENS": "33"}, "CHUNK_OVERLAP_TOKENS"),
        ({"DATABASE_URL": "mysql://h/d", "LEASE_SECONDS": "10"}, "HEARTBEAT_SECONDS"),
    ],
)
def test_settings_that_contradict_are_refused(variables: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=problem) as raised:
        load_settings()
    assert "hunter2" not in raised.value.message


@pytest.mark.parametrize("value", ["", "[memory.example.org]", "memory.example.org", '["a"'])
def test_list_that_is_no_json_is_one_line(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_ALLOWED_HOSTS", value)
    with pytest.raises(ConfigurationError, match=r"(?i)mcp_allowed_hosts.*single quotes"):
        load_settings()


def test_file_of_a_secret_that_is_given_as_nothing_is_not_given(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(secrets))
    monkeypatch.setenv("PG_APP_PASSWORD_FILE", "")
    assert load_settings().secret("pg_app_password") == "pg_app_password-value"


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("SOMEBODY_ELSES", "x")
    assert (load_settings().port, load_settings().secrets_dir) == (9000, tmp_path)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        setattr(Settings(), "port", 1)  # noqa: B010 - the type checker knows it already


@pytest.mark.parametrize("role", sorted(ROLE_SECRETS))
def test_each_role_logs_in_with_its_own_secret(role: str, secrets: Path) -> None:
    settings = Settings(secrets_dir=secrets, database_url="postgresql://h:1/d?sslmode=require")
    dsn = settings.database_dsn(role)  # type: ignore[arg-type]
    assert dsn == f"postgresql+psycopg2://{role}:{ROLE_SECRETS[role]}-value@h:1/d?sslmode=require"  # type: ignore[index]


def test_password_with_special_characters_survives_the_url(secrets: Path) -> None:
    from sqlalchemy import make_url

    password = "p@ss:w/rd%?#é"
    (secrets / "pg_app_password.txt").write_text(password, encoding="utf-8")
    (secrets / "redis_password.txt").write_text(password, encoding="utf-8")
    settings = Settings(secrets_dir=secrets)
    assert make_url(settings.database_dsn("nexus_app")).password == password
    from redis import Redis

    with Redis.from_url(settings.cache_dsn) as client:
        assert client.connection_pool.connection_kwargs["password"] == password


@pytest.mark.parametrize("name", ALL_SECRETS)
def test_secret_file_that_is_missing_or_empty_is_named_and_has_no_default(name: str, secrets: Path) -> None:
    settings = Settings(secrets_dir=secrets)
    assert settings.secret(name) == f"{name}-value"
    (secrets / f"{name}.txt").write_text(" \n")
    with pytest.raises(ConfigurationError, match=f"{name}.*is empty"):
        settings.secret(name)
    (secrets / f"{name}.txt").unlink()
    with pytest.raises(ConfigurationError, match=name):
        settings.secret(name)


@pytest.mark.parametrize("name", ALL_SECRETS)
def test_secret_can_lie_elsewhere(name: str, secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.write_text("elsewhere")
    monkeypatch.setenv(f"{name}_FILE".upper(), str(other))
    monkeypatch.setenv("SECRETS_DIR", str(secrets))
    assert load_settings().secret(name) == "elsewhere"


def test_redis_urls_get_their_users_and_keep_their_own(secrets: Path) -> None:
    settings = Settings(secrets_dir=secrets, redis_url="redis://h:1/0", broker_url="redis://h:1/1")
    assert settings.cache_dsn == "redis://nexus_cache:redis_password-value@h:1/0"
    assert settings.broker_dsn == "redis://nexus_broker:redis_password-value@h:1/1"
    plain = Settings(secrets_dir=secrets, redis_url="redis://h:1/0", redis_cache_user="")
    assert plain.cache_dsn == "redis://:redis_password-value@h:1/0"
    given = Settings(secrets_dir=secrets, broker_url="redis://me:mine@h:1/1")
    assert given.broker_dsn == "redis://me:mine@h:1/1"


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_rabbitmq_url_gets_its_user_and_keeps_its_own(scheme: str, secrets: Path) -> None:
    (secrets / "rabbitmq_password.txt").write_text("p@ss:w/rd%?#é\n", encoding="utf-8")
    settings = Settings(secrets_dir=secrets, rabbitmq_user="me@work", broker_url=f"{scheme}://h:1//")
    with Connection(settings.broker_dsn) as connection:  # type: ignore[no-untyped-call]
        assert (connection.userid, connection.password) == ("me@work", "p@ss:w/rd%?#é")
        assert (connection.hostname, connection.port, connection.virtual_host) == ("h", 1, "/")
    given = Settings(secrets_dir=secrets / "none", broker_url=f"{scheme}://me:mine@h//")
    assert given.broker_dsn == f"{scheme}://me:mine@h//"


def test_every_node_of_a_rabbitmq_cluster_gets_the_user(secrets: Path) -> None:
    (secrets / "rabbitmq_password.txt").write_text("p@ss", encoding="utf-8")
    settings = Settings(secrets_dir=secrets, broker_url="amqp://a:1//; amqp://b:2//;amqp://me:mine@c:3//;")
    assert settings.broker_is_rabbitmq
    assert settings.broker_dsn == "amqp://nexus:p%40ss@a:1//;amqp://nexus:p%40ss@b:2//;amqp://me:mine@c:3//"


def test_password_of_rabbitmq_is_asked_for_only_by_a_rabbitmq_url(secrets: Path) -> None:
    assert Settings(secrets_dir=secrets).broker_dsn.startswith("redis://")
    without = Settings(secrets_dir=secrets, broker_url="amqp://h//", rabbitmq_user="me")
    with pytest.raises(ConfigurationError, match=r"rabbitmq_password: cannot read .*rabbitmq_password\.txt.*write me's password"):
        _ = without.broker_dsn
    (secrets / "rabbitmq_password.txt").write_text(" \n")
    with pytest.raises(ConfigurationError, match=r"rabbitmq_password.*is empty; write"):
        _ = without.broker_dsn
    elsewhere = secrets / "elsewhere"
    elsewhere.write_text("x")
    assert Settings(broker_url="amqp://h//", rabbitmq_password_file=elsewhere).broker_dsn == "amqp://nexus:x@h//"


def test_no_secret_stands_in_the_settings_themselves(secrets: Path) -> None:
    settings = Settings(secrets_dir=secrets)
    settings.database_dsn("nexus_app")
    assert "-value" in settings.cache_dsn
    assert "-value" not in repr(settings)
