"""Clients of the HTTP layer: `layer` on doubles, `alice` and `bob` on the real database."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.bootstrap import Services
from app.config import Settings
from app.factory import Application, create_app
from app.identity.models import KeyRole
from tests.api.doubles import Doubles
from tests.factories.gunicorn import Gunicorn, running


@pytest.fixture
def doubles() -> Doubles:
    """Services that remember what they were asked."""
    return Doubles()


@pytest.fixture
def layer_app(doubles: Doubles, tmp_path: Path) -> Application:
    """The application on the doubles."""
    settings = Settings(secrets_dir=tmp_path)
    return create_app(settings, doubles.as_services(settings))


@pytest.fixture
def layer(layer_app: Application) -> Iterator[FlaskClient]:
    """A client of that application; it sends no key by itself."""
    with layer_app.test_client() as client:
        yield client


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Gunicorn]:
    """A real server of two processes, on the doubles."""
    with running(tmp_path) as server:
        yield server


@dataclass(frozen=True)
class Caller:
    """One key at the real application: PostgreSQL behind it, nothing replaced."""

    client: FlaskClient
    key: str

    def post(self, path: str, json: Any, **headers: str) -> TestResponse:
        """Send a POST; header names are written with underscores."""
        return self.client.post(path, json=json, headers=self._headers(headers))

    def get(self, path: str, **headers: str) -> TestResponse:
        """Send a GET."""
        return self.client.get(path, headers=self._headers(headers))

    def patch(self, path: str, json: Any, **headers: str) -> TestResponse:
        """Send a PATCH."""
        return self.client.patch(path, json=json, headers=self._headers(headers))

    def put(self, path: str, json: Any, **headers: str) -> TestResponse:
        """Send a PUT."""
        return self.client.put(path, json=json, headers=self._headers(headers))

    def delete(self, path: str, **headers: str) -> TestResponse:
        """Send a DELETE."""
        return self.client.delete(path, headers=self._headers(headers))

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        return {"X-API-Key": self.key} | {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def caller(services: Services) -> Iterator[Callable[..., Caller]]:
    """Issue a key of a role, bound to an agent where the role needs one, and call with it."""
    with create_app(services.settings, services).test_client() as client:

        def issue(role: KeyRole, agent_id: str | None = None) -> Caller:
            issued = services.keys.create(role=role, name="test", agent_id=agent_id, expires_days=None)
            return Caller(client, issued.secret)

        yield issue


@pytest.fixture
def alice(caller: Callable[..., Caller]) -> Caller:
    """An agent."""
    return caller("agent", "alice")


@pytest.fixture
def bob(caller: Callable[..., Caller]) -> Caller:
    """Another agent."""
    return caller("agent", "bob")
