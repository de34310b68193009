"""People at the console: each a browser's cookies and a key, at the real application on PostgreSQL and Redis."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.bootstrap import Services
from app.config import Settings
from app.factory import Application, create_app
from app.identity.models import KeyRole
from tests.api.doubles import Doubles

_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
SIGN_IN = "/console/sign-in"


@dataclass(frozen=True)
class Visitor:
    """A browser and the key that its owner holds."""

    client: FlaskClient
    key: str

    def get(self, path: str, **headers: str) -> TestResponse:
        """Open a page; header names are written with underscores."""
        return self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def token(self) -> str:
        """Return the token of the forms that this browser is shown."""
        page = self.get("/console/").get_data(as_text=True)
        found = _TOKEN.search(page) or _TOKEN.search(self.get(SIGN_IN).get_data(as_text=True))
        assert found is not None
        return found[1]

    def post(self, path: str, form: dict[str, str | list[str]] | None = None, *, token: str | None = None, **headers: str) -> TestResponse:
        """Send a form with the token that belongs to it, or another one."""
        data = {"csrf_token": self.token() if token is None else token, **(form or {})}
        return self.client.post(path, data=data, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def sign_in(self, key: str | None = None, **form: str) -> TestResponse:
        """Sign in with the visitor's key, or another one."""
        return self.post(SIGN_IN, {"key": self.key if key is None else key, **form})

    def is_signed_in(self) -> bool:
        """Return whether the first page is shown."""
        return self.get("/console/").status_code == 200


@pytest.fixture
def layer_app(tmp_path: Path) -> Application:
    """The application on doubles, for what asks no service."""
    settings = Settings(secrets_dir=tmp_path)
    return create_app(settings, Doubles().as_services(settings))


@pytest.fixture
def app(services: Services) -> Application:
    """The application."""
    return create_app(services.settings, services)


@pytest.fixture
def visitor(app: Application, services: Services) -> Callable[..., Visitor]:
    """Let somebody come with a new key of a role, bound to an agent where the role needs one; signed in unless told otherwise."""

    def come(role: KeyRole, agent_id: str | None = None, *, signed_in: bool = True) -> Visitor:
        key = services.keys.create(role=role, name=f"{role} key", agent_id=agent_id, expires_days=None).secret
        arrived = Visitor(app.test_client(), key)
        if signed_in:
            assert arrived.sign_in().status_code == 303
        return arrived

    return come


@pytest.fixture
def admin(visitor: Callable[..., Visitor]) -> Visitor:
    """An administrator."""
    return visitor("admin")


@pytest.fixture
def operator(visitor: Callable[..., Visitor]) -> Visitor:
    """An operator."""
    return visitor("operator")


@pytest.fixture
def alice(visitor: Callable[..., Visitor]) -> Visitor:
    """A person with alice's key."""
    return visitor("agent", "alice")
