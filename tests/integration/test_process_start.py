"""A worker or API that waiting cannot help ends at once, with the reason."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import Settings
from app.embedding.weights import find_weights
from app.stack import environment, ports
from app.stack.layout import PROJECT_ROOT, Layout
from app.stack.secret_files import write_missing

PROCESSES = {
    "worker": ["celery", "-A", "tasks.celery_app", "worker"],
    "api": ["gunicorn", "-c", "app/gunicorn_config.py", "app.wsgi:app"],
}


def _end(process: str, variables: dict[str, str]) -> tuple[int, str]:
    """Return the exit status of a process that ends by itself, and what it said."""
    command = [sys.executable, "-m", *PROCESSES[process]]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=variables, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("process", "missing"),
    [("worker", "pg_worker_password"), ("worker", "redis_password"), ("api", "pg_app_password"), ("api", "console_session_key")],
)
def test_process_with_a_secret_missing_ends_and_names_it(process: str, missing: str, tmp_path: Path) -> None:
    write_missing(Settings(secrets_dir=tmp_path))
    (tmp_path / f"{missing}.txt").unlink()
    variables = {"SECRETS_DIR": str(tmp_path), "DATA_DIR": str(tmp_path / "data"), "PORT": str(ports.choose(0)), "API_PROCESSES": "1"}
    status, said = _end(process, variables)
    assert status in {1, 2, 3}, status
    (reason,) = [line for line in said.splitlines() if f"secret {missing}: cannot read" in line]
    assert "make secrets" in reason


@pytest.mark.parametrize("process", PROCESSES)
def test_process_of_another_model_than_the_database_expects_ends_with_the_reason(
    process: str, database_settings: Settings, tmp_path: Path
) -> None:
    other = shutil.copytree(find_weights("").folder, tmp_path / "other", copy_function=os.symlink)
    pooling = other / "1_Pooling" / "config.json"
    text = pooling.read_text()
    pooling.unlink()
    pooling.write_text(text + "\n")
    chosen = {"embedding_model": str(other), "port": ports.choose(0), "data_dir": tmp_path / "data", "api_processes": 1}
    settings = Settings(**{**database_settings.model_dump(include=database_settings.model_fields_set), **chosen})
    status, said = _end(process, environment.for_programs(settings, Layout(tmp_path)))
    assert status in {1, 3}, said[-2000:]
    reasons = [line for line in said.splitlines() if f"{process}_refuses_to_start" in line]
    assert len(reasons) == 1, said[-2000:]
    assert "the database expects vectors of all-MiniLM-L6-v2" in reasons[0]
    assert "set EMBEDDING_MODEL to the model that the database expects" in reasons[0]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_worker_with_a_pool_without_children_ends_with_the_reason(pool: str, tmp_path: Path) -> None:
    write_missing(Settings(secrets_dir=tmp_path))
    command = [sys.executable, "-m", *PROCESSES["worker"], "-P", pool]
    variables = {"SECRETS_DIR": str(tmp_path), "DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=variables, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "prefork only" in done.stdout + done.stderr
