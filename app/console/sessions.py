"""The console's session: a signed cookie that names a key and holds none, for the pages of the console alone."""

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

from flask import Flask, Request, g, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from itsdangerous import URLSafeTimedSerializer

from app.api.services import services
from app.config import CONSOLE_KEY_SECRET, Settings
from app.errors import ConfigurationError, Unauthenticated
from app.identity.models import Principal
from app.identity.sessions import SESSION_HOURS, Session

COOKIE = "nexus_console"
PATH = "/console"
_BELOW = f"{PATH}/"


class ConsoleSessions(SecureCookieSessionInterface):
    """Flask's signed cookie, opened at the console only: a request to the API neither reads nor writes one.

    Args:
        settings: Where the secret is, which is read at each page.
    """

    digest_method = staticmethod(hashlib.sha256)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        """Return what signs the cookie: with the key that the file holds by now, so that a rotated one ends every session at once."""
        try:
            app.secret_key = self._settings.secret(CONSOLE_KEY_SECRET)
        except ConfigurationError:
            if not app.secret_key:
                raise
        return super().get_signing_serializer(app)

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Return the session of a request to the console, empty when its cookie is missing, forged or too old; None for any other."""
        if not (request.path.startswith(_BELOW) or request.path == PATH):
            return None
        return super().open_session(app, request)

    def get_cookie_secure(self, app: Flask) -> bool:
        """Return whether the browser came by https, itself or through a proxy: then the cookie never goes another way."""
        # Whoever forges the header makes only their own cookie stricter.
        return request.is_secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"


def install(app: Flask, settings: Settings) -> None:
    """Give the application the console's sessions."""
    app.session_interface = ConsoleSessions(settings)
    app.config.update(
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_PATH=PATH,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        PERMANENT_SESSION_LIFETIME=timedelta(hours=SESSION_HOURS),
    )


def begin(held: Session) -> None:
    """Keep a new session in the cookie; nothing of an earlier one stays, its CSRF token neither."""
    session.clear()
    session["session"] = held.session_id.hex
    session["key"] = held.key_id.hex
    session["began"] = int(held.began_at.timestamp())


def current() -> Session | None:
    """Return the session that the cookie names, whether or not it still holds; None when it names none."""
    try:
        began_at = datetime.fromtimestamp(session["began"], UTC)
        return Session(UUID(session["session"]), UUID(session["key"]), began_at)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None  # Nobody signed in, or another release wrote it.


def identify() -> Principal:
    """Return the caller of a page.

    Raises:
        Unauthenticated: Nobody is signed in, or the session has ended.
    """
    held = current()
    if held is None:
        raise Unauthenticated("sign in to see this page")
    key = services().sessions.key_of(held)
    g.console_key = key
    return Principal(key.key_id, key.role, key.agent_id, key.rate_limit_per_minute)
