"""Secret files are written once, privately, and never touched again."""

import re
import stat
from pathlib import Path

import pytest

from app.config import ALL_SECRETS, COMPOSE_SECRETS, Settings
from app.errors import ConfigurationError
from app.stack.secret_files import write_missing

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
