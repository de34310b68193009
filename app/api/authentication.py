"""Who is calling: reads the key of a request, asks the route's policy, and settles whose memory is meant."""

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import cast

from flask import Flask, current_app, g, request

from app.api.policies import ROUTE_POLICIES, Access
from app.api.services import services
from app.errors import DatabaseUnavailable, InvalidRequest, PermissionDenied, Unauthenticated
from app.identity.models import Principal
from app.identity.permissions import Permission, require
from app.identity.service import AGENT_ID_PATTERN, is_agent_id
from app.observability import context

Identify = Callable[[], Principal]
"""Returns the caller of the current request, or raises Unauthenticated."""

_BY_BLUEPRINT = "nexus-identify"

_WATCHING = frozenset({Access.KEY_OR_LOOPBACK, Permission.READ_HEALTH})
"""Policies of the routes that must say so when PostgreSQL is away, which also knows the keys."""

_TELLS_OF_OUTAGE = "operations.get_metrics"
"""The route that says that PostgreSQL is away also to whom nobody knows: Prometheus asks it with a key, and must see which one is down."""

_OF_PROXIES = (
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "Forwarded",
    "Via",
    "X-Real-Ip",
    "X-Client-Ip",
    "True-Client-Ip",
    "Cf-Connecting-Ip",
)
"""Headers that a proxy adds; one that adds none of them makes every caller seem local."""


class AgentRequired(InvalidRequest):
    """The key serves any agent and the request names none."""

    code = "agent_required"


class AgentMismatch(InvalidRequest):
    """The request names two different agents."""

    code = "agent_mismatch"


def _presented_key() -> str | None:
    header = request.headers.get("X-API-Key")
    authorization = request.headers.get("Authorization")
    if authorization is None:
        return header
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("Authorization must be of the form: Bearer <key>")
    if header is not None and header != token.strip():
        raise Unauthenticated("X-API-Key and Authorization hold different keys; send one")
    return token.strip()


def _is_loopback() -> bool:
    # Behind a proxy on this machine every caller seems local: a forwarded request never counts as such.
    if any(name in request.headers for name in _OF_PROXIES):
        return False
    try:
        return ip_address(request.remote_addr or "").is_loopback
    except ValueError:
        return False


def check_access() -> None:
    """Let the request through when its route's policy allows; the principal is then `g.principal`.

    Raises:
        Unauthenticated: A key is needed and there is no good one.
        PermissionDenied: The key may not do this, or the route has no policy.
        RateLimited: The key has made as many requests as it may in this minute; refused ones count too.
    """
    if request.endpoint is None:
        return  # No route matched: the router answers 404 or 405 itself.
    policy = ROUTE_POLICIES.get(request.endpoint)
    if policy is Access.OPEN:
        return
    if policy is None:
        raise PermissionDenied("this route is closed")
    if policy is Access.KEY_OR_LOOPBACK and _presented_key() is None and _is_loopback():
        return
    try:
        principal = _identify()
    except DatabaseUnavailable:
        if request.endpoint != _TELLS_OF_OUTAGE:
            raise
        g.is_unverified = True
        return
    context.add(role=principal.role)
    services().rate_limiter.count(principal.key_id, principal.rate_limit_per_minute)
    require(principal, policy if isinstance(policy, Permission) else Permission.READ_HEALTH)
    g.principal = principal


def is_unverified() -> bool:
    """Return whether nobody knows if the request's key is good, because PostgreSQL is away: only the outage itself may be told."""
    return bool(g.get("is_unverified", False))


def _identify() -> Principal:
    """Return the caller: by the session at pages that have one, and everywhere else by the key alone, so that no page can call the API."""
    by_blueprint = cast(Mapping[str, Identify], current_app.extensions[_BY_BLUEPRINT])
    outermost = (request.endpoint or "").partition(".")[0]
    return by_blueprint.get(outermost, _by_key)()


def _by_key() -> Principal:
    key = _presented_key()
    if key is None:
        raise Unauthenticated("an API key is needed: send it as X-API-Key, or as Authorization: Bearer <key>")
    return services().keys.authenticate(key, trusts_outage=ROUTE_POLICIES.get(request.endpoint or "") in _WATCHING)


def _named_agent(named: tuple[str | None, ...]) -> str | None:
    header = request.headers.get("X-Agent-Id")
    if header is not None and not is_agent_id(header):
        message = f"must match {AGENT_ID_PATTERN}"
        raise InvalidRequest(f"X-Agent-Id: {message}", errors=[{"field": "X-Agent-Id", "code": "bad_format", "message": message}])
    agents = {agent for agent in (header, *named) if agent is not None}
    if len(agents) > 1:
        raise AgentMismatch("X-Agent-Id and the agent_id of the request name different agents")
    return next(iter(agents), None)


def find_agent(*named: str | None) -> str | None:
    """Return whose data the request is about, or None when a key that serves any agent names none.

    Args:
        named: What the body or the query say, each None when it says nothing.

    Raises:
        AgentMismatch: The header and `named` disagree.
        PermissionDenied: The key is bound to another agent.
    """
    principal: Principal = g.principal
    agent_id = _named_agent(named)
    if principal.agent_id is not None:
        if agent_id is not None and agent_id != principal.agent_id:
            raise PermissionDenied("this key is bound to another agent")
        agent_id = principal.agent_id
    if agent_id is not None:
        context.add(agent_id=agent_id)
    return agent_id


def require_agent(*named: str | None) -> str:
    """Return whose data the request is about.

    Raises:
        AgentRequired: The key serves any agent and the request names none.
        AgentMismatch: The header and `named` disagree.
        PermissionDenied: The key is bound to another agent.
    """
    agent_id = find_agent(*named)
    if agent_id is None:
        raise AgentRequired("this key serves any agent: name one in X-Agent-Id or agent_id")
    return agent_id


def install(app: Flask, by_blueprint: Mapping[str, Identify]) -> None:
    """Check every request before its route runs.

    Args:
        app: The application.
        by_blueprint: How the caller is known at blueprints that take no key, by the name of the outermost one.
    """
    app.extensions[_BY_BLUEPRINT] = by_blueprint
    app.before_request(check_access)
