"""The two ways in: streamable HTTP on loopback for agents that bring their key, and stdio for one that starts this process."""

import os
from collections.abc import Mapping
from pathlib import Path

import anyio
import httpx
import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.client.asynchronous import AsyncNexusClient
from app.client.transport import NexusApiError
from app.config import Settings
from app.errors import ConfigurationError
from app.mcp.tools import build_server
from app.observability.logs import configure_logging
from app.security_headers import SECURITY_HEADERS

VERSION = "1.0.0"
_NAME_OF_AGENT = "an agent is called by letters of ASCII, digits and . _ @ -"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def key_of(headers: Mapping[str, str]) -> str | None:
    """Return the key that a request brings, as X-API-Key or Authorization: Bearer; None without one, or with two that differ."""
    plain = headers.get("x-api-key")
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    if plain and bearer and plain != bearer:
        return None
    return plain or bearer or None


class RequireKey:
    """Lets nobody through without a key. Whether it is good, the API says at each call."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and key_of(Headers(scope=scope)) is None:
            refused = JSONResponse(
                {"code": "unauthenticated", "detail": "an API key is needed: send it as X-API-Key, or as Authorization: Bearer <key>"},
                401,
                {"WWW-Authenticate": 'Bearer realm="nexus-cerebro"'},
            )
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)


class SecurityHeaders:
    """Adds to every answer what keeps a browser from taking it for something else, or from keeping it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def api_url(settings: Settings) -> str:
    """Return where the API listens."""
    if settings.mcp_api_url:
        return settings.mcp_api_url
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def http_app(settings: Settings) -> Starlette:
    """Return the application for streamable HTTP at /mcp; Host and Origin must be this machine's, or named in MCP_ALLOWED_HOSTS."""
    url = api_url(settings)

    def open_client(headers: Mapping[str, str] | None) -> AsyncNexusClient:
        headers = headers or {}
        key, agent_id = key_of(headers) or "", headers.get("x-agent-id")
        # No header that is asked with could carry them, so the API cannot say it.
        if not key.isascii():
            raise NexusApiError(httpx.codes.UNAUTHORIZED, "unauthenticated", "the API key is not valid")
        if agent_id is not None and not agent_id.isascii():
            raise NexusApiError(httpx.codes.UNPROCESSABLE_ENTITY, "invalid_request", f"X-Agent-Id: {_NAME_OF_AGENT}")
        return AsyncNexusClient(url, key, agent_id)

    names = [*(f"{host}:{settings.mcp_port}" for host in _LOOPBACK), *settings.mcp_allowed_hosts]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=names,
        allowed_origins=[f"{scheme}://{name}" for scheme in ("http", "https") for name in names],
    )
    # Without sessions, any number of processes can serve the same agents, and a restart breaks nobody off.
    app = build_server(open_client, VERSION).streamable_http_app(
        json_response=True, stateless_http=True, transport_security=security, max_request_body_size=settings.max_body_bytes
    )
    app.add_middleware(RequireKey)
    app.add_middleware(SecurityHeaders)
    return app


def serve_http(settings: Settings) -> None:
    """Serve on MCP_HOST, loopback by default, until told to stop."""
    # Before the SDK's server is made: it sets up a log of its own where there is none.
    configure_logging(settings, "mcp")
    app = http_app(settings)
    uvicorn.run(app, host=settings.mcp_host, port=settings.mcp_port, log_config=None, access_log=False, server_header=False)


def serve_stdio(settings: Settings) -> None:
    """Serve the process that started this one, with the key in NEXUS_API_KEY or in the file NEXUS_API_KEY_FILE.

    Raises:
        ConfigurationError: There is no key, or what is given can be no key or no name of an agent.
    """
    key = os.environ.get("NEXUS_API_KEY", "")
    file = os.environ.get("NEXUS_API_KEY_FILE")
    if not key and file:
        try:
            key = Path(file).read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"NEXUS_API_KEY_FILE: {file} is not UTF-8 text") from error
        except OSError as error:
            raise ConfigurationError(f"NEXUS_API_KEY_FILE: cannot read {file}: {error.strerror}") from error
    if not key:
        raise ConfigurationError("set NEXUS_API_KEY_FILE to the file of the agent's key, or NEXUS_API_KEY to the key")
    agent_id = os.environ.get("NEXUS_AGENT_ID")
    if not key.isascii():
        raise ConfigurationError("NEXUS_API_KEY_FILE or NEXUS_API_KEY holds no key: a key has only ASCII")
    if agent_id is not None and not agent_id.isascii():
        raise ConfigurationError(f"NEXUS_AGENT_ID: {_NAME_OF_AGENT}")
    configure_logging(settings, "mcp")
    url = api_url(settings)
    anyio.run(build_server(lambda _: AsyncNexusClient(url, key, agent_id), VERSION).run_stdio_async)
