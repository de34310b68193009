"""The whole stack as an operator starts it, with the real model, in folders and on ports of its own."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.config import Settings
from app.db import Database
from app.stack import control, leftovers
from app.stack.layout import Layout
from app.stack.secret_files import write_missing
from app.stack.service import Stack
from tests.acceptance.sandbox import Sandbox
from tests.factories.otlp import Collector


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class RunningStack:
    """A live stack, its client with the administrator's key, and a way into its database as each role."""

    stack: Stack
    settings: Settings
    base_url: str
    admin_key: str

    def client(self, agent_id: str | None = None, key: str | None = None) -> httpx.Client:
        headers = {"X-API-Key": key or self.admin_key}
        if agent_id is not None:
            headers["X-Agent-Id"] = agent_id
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=30, trust_env=False)

    def database(self, role: str) -> Database:
        return Database(self.settings, role, "nexus acceptance test")  # type: ignore[arg-type]


@pytest.fixture(scope="package")
def stack() -> Iterator[RunningStack]:
    # Not pytest's own folder: it is mode 700, and under root PostgreSQL runs as another user who must reach its data.
    folder = Path(tempfile.mkdtemp(prefix="nexus-acceptance-"))
    settings = Settings(
        data_dir=folder / "data",
        secrets_dir=folder / "secrets",
        port=free_port(),
        flower_port=free_port(),
        retry_base_seconds=0.5,
    )
    write_missing(settings)
    running = Stack(settings)
    try:
        running.up()
        yield RunningStack(running, running.settings, f"http://127.0.0.1:{settings.port}", settings.secret("admin_api_key"))
    finally:
        running.down()
        shutil.rmtree(folder)


@pytest.fixture(scope="package")
def sandbox() -> Iterator[Sandbox]:
    """One for the package: what breaks it also mends it."""
    collector = Collector()
    collector.start()
    folder = Path(tempfile.mkdtemp(prefix="nexus-runbooks-"))
    settings = Settings(
        data_dir=folder / "data",
        secrets_dir=folder / "secrets",
        port=free_port(),
        flower_port=free_port(),
        worker_replicas=1,
        api_processes=1,
        mcp_port=free_port(),
        otel_exporter_otlp_endpoint=collector.endpoint,
    )
    write_missing(settings)
    box = Sandbox(settings, collector)
    try:
        box.up()
        yield box
    finally:
        collector.stop()
        control.stop(settings, lambda _: None)
        leftovers.stop_all(Layout(settings.data_dir.resolve()).stack_id)
        shutil.rmtree(folder)
