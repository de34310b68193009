"""The service between a PostgreSQL and a Redis that can fail."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import make_url

from app.bootstrap import Services, build_services
from app.cache import keys
from app.config import Settings
from app.factory import create_app
from app.stack.layout import Layout
from tests.factories.encoder import FakeEncoder
from tests.factories.proxy import Proxy
from tests.factories.redis import RedisServer

AGENT = "alice"


@dataclass
class Place:
    """The service between a PostgreSQL and a Redis that can fail.

    Attributes:
        client: Speaks HTTP as the agent.
        redis: The server.
        redis_proxy: Between the service and it.
        database_proxy: Between the service and PostgreSQL.
        password: Of the service's users of Redis.
    """

    client: FlaskClient
    redis: RedisServer
    redis_proxy: Proxy
    database_proxy: Proxy
    password: str
    services: Services

    def put(self, context_id: str, step: int) -> int:
        """Write a working memory and return the status of the answer."""
        body = {"active_content": {"step": step}, "ttl_seconds": 600}
        return int(self.client.put(f"/memory/working/{context_id}", json=body).status_code)

    def delete(self, context_id: str) -> int:
        """Delete a working memory and return the status."""
        return int(self.client.delete(f"/memory/working/{context_id}").status_code)

    def step(self, context_id: str) -> int | None:
        """Return what is read, None when there is nothing."""
        answer = self.client.get(f"/memory/working/{context_id}")
        assert answer.status_code in {200, 404}, answer.text
        return int(answer.json["active_content"]["step"]) if answer.status_code == 200 and answer.json is not None else None

    def forget(self) -> int:
        """Have the agent forgotten and return the status."""
        return int(self.client.delete(f"/agents/{AGENT}").status_code)

    def note(self, content: str) -> int:
        """Store an episode and return the status."""
        return int(self.client.post("/memory/action", json={"content": content}).status_code)

    def recent(self) -> list[str]:
        """Return the agent's latest episodes."""
        answer = self.client.get("/memory/episodic/recent")
        assert answer.status_code == 200 and answer.json is not None, answer.text
        return [item["content"] for item in answer.json["items"]]

    def value(self, context_id: str) -> bytes | None:
        """Return what Redis holds of a working memory."""
        value: bytes | None = self.redis.admin.get(keys.working(AGENT, context_id))  # type: ignore[assignment]
        return value

    def forget_the_pause(self) -> None:
        """Let the next request speak to Redis, which is left alone for two seconds after a failure."""
        for cache in (self.services.working._cache, self.services.episodes._cache):
            cache._redis._rest_until = 0.0


@pytest.fixture(scope="module")
def redis_server(servers: Any) -> Iterator[RedisServer]:
    """Redis with the service's configuration, the password that of the session's secrets."""
    with tempfile.TemporaryDirectory(prefix="nexus-matrix-") as folder:
        layout = Layout(Path(folder))
        layout.create()
        server = RedisServer(layout, servers.settings.secret("redis_password"))
        server.start()
        yield server
        server.close()


@pytest.fixture
def place(database_settings: Settings, redis_server: RedisServer, encoder: FakeEncoder) -> Iterator[Place]:
    """The service, each of its servers behind a proxy."""
    redis_server.admin.flushall()
    database = make_url(database_settings.database_url)
    assert database.port is not None
    with ExitStack() as stack:
        database_proxy, redis_proxy = Proxy(database.port).start(), Proxy(redis_server.port).start()
        stack.callback(database_proxy.stop)
        stack.callback(redis_proxy.stop)
        settings = database_settings.model_copy(
            update={
                "database_url": database.set(port=database_proxy.port).render_as_string(hide_password=False),
                "redis_url": f"redis://127.0.0.1:{redis_proxy.port}/0",
                "database_connect_timeout_seconds": 1,
                # What the key says is known for so long without PostgreSQL.
                "authentication_cache_seconds": 60.0,
            }
        )
        services = build_services(settings, load=lambda _: encoder)
        stack.callback(services.close)
        key = services.keys.create(role="agent", name="matrix", agent_id=AGENT, expires_days=None).secret
        client = create_app(settings, services).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        yield Place(client, redis_server, redis_proxy, database_proxy, settings.secret("redis_password"), services)
