"""A stack that may be broken, stopped and thrown away, started as an operator starts it."""

import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import psycopg2
from psycopg2 import extensions
from sqlalchemy import make_url

from app.config import Settings
from app.stack import control
from app.stack.dump import superuser_url
from app.stack.layout import PROJECT_ROOT, Layout, State
from app.stack.supervisor import Supervisor
from tests.factories.otlp import Collector


@dataclass(frozen=True)
class Sandbox:
    """The stack, and where it sends its traces."""

    settings: Settings
    collector: Collector

    @property
    def small(self) -> dict[str, str]:
        """Variables that keep a stack small that is started again: each process of the API and each worker loads a model."""
        return {"API_PROCESSES": str(self.settings.api_processes), "WORKER_REPLICAS": str(self.settings.worker_replicas)}

    @property
    def running(self) -> Settings:
        return control.attached(self.settings)

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the command line, whatever its exit status."""
        named = {name.upper(): str(getattr(self.settings, name)) for name in self.settings.model_fields_set}
        # Spans are sent after half a second instead of five.
        environment = {**os.environ, **named, "OTEL_BSP_SCHEDULE_DELAY": "500"}
        command = [sys.executable, "-m", "app", *arguments]
        return subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=False, timeout=300, capture_output=True, text=True)

    def up(self) -> None:
        done = self.command("stack", "up", "--detach")
        assert done.returncode == 0, done.stderr

    def supervisor(self) -> Supervisor:
        return Supervisor(State.read(Layout(self.settings.data_dir.resolve())).supervisor_socket)

    def client(self, agent_id: str | None = "ada") -> httpx.Client:
        headers = {"X-API-Key": self.settings.secret("admin_api_key")} | ({} if agent_id is None else {"X-Agent-Id": agent_id})
        return httpx.Client(base_url=f"http://127.0.0.1:{self.settings.port}", headers=headers, timeout=30, trust_env=False)

    def store(self, count: int, what: str) -> list[UUID]:
        items = [{"content": f"{what} {number}"} for number in range(count)]
        with self.client() as client:
            receipts: list[dict[str, Any]] = client.post("/memory/actions", json={"items": items}).raise_for_status().json()["items"]
        return [UUID(receipt["episode_id"]) for receipt in receipts]

    def superuser(self) -> extensions.connection:
        url = make_url(superuser_url(self.running))
        connection = psycopg2.connect(
            host=url.host, port=url.port, user=url.username, password=url.password, dbname="nexus_memory", connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def sql(self, *statements: tuple[str, Any]) -> None:
        with closing(self.superuser()) as connection, connection.cursor() as cursor:
            for statement, parameters in statements:
                cursor.execute(statement, parameters)

    def wait_until_embedded(self) -> dict[str, int]:
        """Wait until nothing of any agent is open; a message that was lost with its broker is sent again when its lease ends."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with self.client(agent_id=None) as client:
                counts: dict[str, int] = client.get("/stats").raise_for_status().json()["embeddings_queue"]
            if not counts["pending"] and not counts["processing"]:
                return counts
            time.sleep(0.2)
        raise AssertionError(counts)
