"""celery-exporter in an environment of its own, made of its requirements while something else goes on."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.config import Settings
from app.stack import ports
from tests.factories.documents import ROOT
from tests.factories.processes import LocalProcess

_REQUIREMENTS = ROOT / "compose" / "celery-exporter-requirements.txt"
_PATIENCE_SECONDS = 120


class ExporterEnvironment:
    """A virtual environment below a folder; its making begins at once and goes on in the background.

    Attributes:
        python: Its interpreter, once it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.python = folder / "bin" / "python"
        install = f'"{self.python}" -m pip install -q --disable-pip-version-check -r "{_REQUIREMENTS}"'
        self._making = subprocess.Popen(
            ["/bin/sh", "-c", f'"{sys.executable}" -m venv "{folder}" && {install}'],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def is_made(self) -> bool:
        """Wait until it is made, and return whether it could be."""
        return self._making.wait(_PATIENCE_SECONDS) == 0

    def need(self) -> None:
        """Wait until it is made; skip the test where it cannot be and need not."""
        if not self.is_made() and os.environ.get("NEXUS_REQUIRE_CELERY_EXPORTER") != "1":
            pytest.skip("celery-exporter's requirements cannot be installed here")
        assert self._making.returncode == 0

    def close(self) -> None:
        """End its making if that still goes on."""
        if self._making.poll() is None:
            self._making.kill()
            self._making.wait()


class CeleryExporter:
    """celery-exporter beside an embedded stack, started as its container starts it.

    Args:
        environment: Made.
        settings: Of the running stack.
        folder: Where its log goes.
    """

    def __init__(self, environment: ExporterEnvironment, settings: Settings, folder: Path) -> None:
        self.port = ports.choose(0)
        given = {
            "BROKER_URL": settings.broker_url,
            "REDIS_BROKER_USER": settings.redis_broker_user,
            "REDIS_PASSWORD_FILE": str(settings.secret_path("redis_password")),
            "CE_PORT": str(self.port),
        }
        whole = ["/usr/bin/env", *(f"{name}={value}" for name, value in given.items())]
        script = str(ROOT / "compose" / "celery_exporter.py")
        self._process = LocalProcess("celery-exporter", [*whole, str(environment.python), script], folder, {})

    def start(self) -> None:
        """Start it."""
        self._process.start()

    def answers(self) -> bool:
        """Return whether it does."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health", trust_env=False, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """Stop it."""
        self._process.stop()
