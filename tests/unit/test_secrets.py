"""Secret files are written once, privately, and never touched again."""

import os
import re
import stat
from pathlib import Path

import pytest

from app.config import ALL_SECRETS, COMPOSE_SECRETS, Settings
from app.errors import ConfigurationError, StackError
from app.redis_client import connect
from app.stack.rotation import rotate
from app.stack.secret_files import new_value, put, write_missing

WRITTEN = (*ALL_SECRETS, *COMPOSE_SECRETS)


def test_missing_secrets_are_written_privately_and_differ(tmp_path: Path) -> None:
    settings = Settings(secrets_dir=tmp_path / "secrets")
    written = write_missing(settings)
    assert [path.name for path in written.created] == [f"{name}.txt" for name in WRITTEN]
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    values = {name: settings.secret(name) for name in WRITTEN}
    assert len(set(values.values())) == len(WRITTEN)
    for name, value in values.items():
        keys = {"admin_api_key": r"nxs_admin_[A-Za-z0-9]{40}", "metrics_api_key": r"nxs_operator_[A-Za-z0-9]{40}"}
        pattern = keys.get(name, r"[A-Za-z0-9]{32}")
        assert re.fullmatch(pattern, value)
        assert stat.S_IMODE(settings.secret_path(name).stat().st_mode) == 0o600
    assert sorted(path.name for path in settings.secrets_dir.iterdir()) == sorted(f"{name}.txt" for name in WRITTEN)


def test_secrets_that_exist_are_kept(tmp_path: Path) -> None:
    settings = Settings(secrets_dir=tmp_path)
    (tmp_path / "pg_app_password.txt").write_text("chosen by hand\n")
    first = write_missing(settings)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    second = write_missing(settings)
    assert len(first.created) == len(WRITTEN) - 1
    assert second.created == []
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert settings.secret("pg_app_password") == "chosen by hand"


def test_empty_secrets_are_named_and_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "pg_app_password.txt").write_text("")
    (tmp_path / "redis_password.txt").write_text(" \n")
    with pytest.raises(ConfigurationError, match=r"pg_app_password\.txt is empty.*redis_password\.txt is empty"):
        write_missing(Settings(secrets_dir=tmp_path))
    assert (tmp_path / "pg_app_password.txt").read_text() == ""
    assert (tmp_path / "admin_api_key.txt").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("a file where the folder should be")
    with pytest.raises(ConfigurationError, match="pg_superuser_password"):
        write_missing(Settings(secrets_dir=tmp_path / "secrets"))


def test_a_file_named_by_its_own_variable_is_written_there(tmp_path: Path) -> None:
    settings = Settings(secrets_dir=tmp_path / "a", redis_password_file=tmp_path / "b" / "redis")
    write_missing(settings)
    assert settings.secret("redis_password")
    assert not (tmp_path / "a" / "redis_password.txt").exists()


def test_changed_secret_keeps_its_owner_and_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    settings = Settings(secrets_dir=tmp_path)
    write_missing(settings)
    path = settings.secret_path("redis_password")
    path.chmod(0o640)
    owner = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    if os.geteuid() == 0:
        os.chown(path, *owner)
    put(path, new_value("redis_password"))
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (*owner, 0o640)
    assert re.fullmatch(r"[A-Za-z0-9]{32}", settings.secret("redis_password"))
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(f"{name}.txt" for name in WRITTEN)


def test_redis_client_logs_in_with_what_the_file_holds_by_then(tmp_path: Path) -> None:
    settings = Settings(secrets_dir=tmp_path)
    write_missing(settings)
    client = connect(settings, "redis://127.0.0.1:1/0", "nexus_cache")
    login = client.connection_pool.connection_kwargs["credential_provider"].get_credentials
    assert login() == ("nexus_cache", settings.secret("redis_password"))
    put(settings.secret_path("redis_password"), "another")
    assert login() == ("nexus_cache", "another")
    settings.secret_path("redis_password").unlink()
    assert login() == ("nexus_cache", "another"), "a file that is gone leaves what was known"
    assert connect(settings, "redis://me:mine@127.0.0.1:1/0", "nexus_cache").connection_pool.connection_kwargs["password"] == "mine"
    with pytest.raises(ConfigurationError, match="redis_password"):
        connect(settings, "redis://127.0.0.1:1/0", "nexus_cache")


def test_rotation_without_a_stack_changes_the_files_and_says_what_is_left_for_external_servers(
    tmp_path: Path,
) -> None:
    settings = Settings(data_dir=tmp_path / "data", secrets_dir=tmp_path / "secrets")
    write_missing(settings)
    before = {name: settings.secret(name) for name in ALL_SECRETS}
    done = rotate(settings, ["pg_app_password", "redis_password"], lambda _: None)
    assert (done.names, done.restarted, done.left_to_do) == (["pg_app_password", "redis_password"], [], [])
    changed = [name for name in ALL_SECRETS if settings.secret(name) != before[name]]
    assert changed == ["pg_app_password", "redis_password"]
    with pytest.raises(StackError, match="no stack runs here"):
        rotate(settings, ["admin_api_key"], lambda _: None)
    assert settings.secret("admin_api_key") == before["admin_api_key"]
    external = settings.model_copy(update={"database_url": "postgresql://h/x", "redis_url": "redis://h/0", "broker_url": "redis://h/1"})
    left = rotate(external, ["pg_app_password", "redis_password"], lambda _: None).left_to_do
    assert ["db bootstrap" in left[0], "REDIS_URL" in left[1]] == [True, True]
