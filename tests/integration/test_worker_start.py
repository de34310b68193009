"""A worker that waiting cannot help ends at once, with the reason."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.config import Settings
from app.stack.layout import PROJECT_ROOT
from app.stack.secret_files import write_missing


@pytest.mark.parametrize("missing", ["pg_worker_password", "redis_password"])
def test_worker_with_a_secret_missing_ends_and_names_it(missing: str, tmp_path: Path) -> None:
    write_missing(Settings(secrets_dir=tmp_path))
    (tmp_path / f"{missing}.txt").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks.celery_app", "worker"],
        cwd=PROJECT_ROOT,
        env={"SECRETS_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in {1, 2}, done.returncode
    (reason,) = [line for line in (done.stdout + done.stderr).splitlines() if f"secret {missing}: cannot read" in line]
    assert "make secrets" in reason
