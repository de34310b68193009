"""Writing a page of the console: whole, or only the part that a script asked for."""

from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from flask import Response, g, render_template, request

from app.console import words
from app.identity.models import Principal
from app.identity.permissions import GRANTS, Permission

_STATIC = Path(__file__).parent / "static"

NAVIGATION = (
    ("Overview", "console.overview.show_overview", Permission.READ_HEALTH),
    ("Search", "console.search.show_search", Permission.READ_MEMORY),
    ("Episodes", "console.episodes.show_episodes", Permission.VERIFY_RECEIPTS),
    ("Dead rows", "console.dead.show_dead", Permission.READ_QUEUE),
    ("Integrity", "console.integrity.show_integrity", Permission.READ_INTEGRITY),
    ("Keys", "console.keys.show_keys", Permission.MANAGE_KEYS),
    ("Audit", "console.keys.show_audit", Permission.READ_AUDIT),
)
"""The sections: what each is called, its first page, and what that asks for."""


def may(permission: Permission) -> bool:
    """Return whether the caller holds a permission; False when nobody is signed in."""
    principal: Principal | None = g.get("principal")
    return principal is not None and permission in GRANTS[principal.role]


def is_partial() -> bool:
    """Return whether a script of the page asked, and wants a part of it."""
    return request.headers.get("HX-Request") == "true"


def page(template: str, status: int = 200, /, **values: Any) -> Response:
    """Return a page.

    Args:
        template: Its file's name.
        status: HTTP status.
        values: What the template names.
    """
    return Response(render_template(f"console/{template}", **values), status, content_type="text/html; charset=utf-8")


@cache
def static_file(name: str) -> bytes:
    """Return the content of a static file; each is read once."""
    return (_STATIC / name).read_bytes()


@cache
def version_of(name: str) -> str:
    """Return a mark of a static file's content, so that a browser may keep it until it changes."""
    return sha256(static_file(name)).hexdigest()[:12]


def values() -> dict[str, Any]:
    """Return what every template may name."""
    principal: Principal | None = g.get("principal")
    return {
        "navigation": [(name, endpoint) for name, endpoint, permission in NAVIGATION if may(permission)],
        "section": ".".join((request.endpoint or "").split(".")[:2]),
        "principal": principal,
        "signed_in_key": g.get("console_key"),
        "may": {permission.name: may(permission) for permission in Permission},
        "version_of": version_of,
        "words": words,
        "now": datetime.now(UTC),
        "request_id": g.get("request_id", ""),
    }
