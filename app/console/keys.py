"""API keys for administrators: listed, issued, rotated, revoked; and the audit log of who did what."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, cast

from flask import Response, flash, g, redirect, url_for
from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field

from app.api.schemas.keys import AuditQuery, KeyPath
from app.api.services import services
from app.console import forms, pages
from app.fields import AgentId, StrictModel, Text128
from app.identity.models import IssuedKey, KeyRole

blueprint = APIBlueprint("keys", __name__, doc_ui=False)


class KeyForm(StrictModel):
    """A key to issue; the service checks what goes with what."""

    role: KeyRole
    name: Text128
    agent_id: AgentId | None = None
    expires_days: int | None = None
    rate_limit_per_minute: int | None = None


class RotateForm(StrictModel):
    """How long the old key goes on working."""

    grace_seconds: Annotated[int, Field(ge=0, le=604_800)] = 0


@blueprint.get("/keys")
def show_keys() -> Response:
    """List every key, those that work first, the newest first."""
    return _list(None)


@blueprint.post("/keys")
def create() -> Response:
    """Issue a key, and show it this once."""
    form = forms.read_form(KeyForm)
    issued = services().keys.create(
        role=form.role,
        name=form.name,
        agent_id=form.agent_id,
        expires_days=form.expires_days,
        rate_limit_per_minute=form.rate_limit_per_minute,
        by=g.principal.key_id,
    )
    return _list(issued)


@blueprint.post("/keys/<key_id>/rotate")
def rotate(path: KeyPath) -> Response:
    """Issue a key in the place of another one, and show it this once."""
    form = forms.read_form(RotateForm)
    return _list(services().keys.rotate(path.key_id, form.grace_seconds, g.principal.key_id))


@blueprint.post("/keys/<key_id>/revoke")
def revoke(path: KeyPath) -> Response:
    """Revoke a key."""
    key = services().keys.revoke(path.key_id, g.principal.key_id)
    flash(f"The key “{key.name}” is revoked. Processes follow within {services().settings.authentication_cache_seconds:g} s.", "good")
    return cast(Response, redirect(url_for("console.keys.show_keys"), HTTPStatus.SEE_OTHER))


@blueprint.get("/audit")
def show_audit(query: AuditQuery) -> Response:
    """Show administrative actions, the latest first."""
    entries = services().keys.audit(query.limit, query.before)
    names = {key.key_id: key.name for key in services().keys.list_keys()}
    older = entries[-1].audit_id if len(entries) == query.limit else None
    by_text = {str(key_id): name for key_id, name in names.items()}
    return pages.page("audit.html", entries=entries, names=names, names_by_text=by_text, older=older, query=query)


def _list(issued: IssuedKey | None) -> Response:
    now = datetime.now(UTC)
    keys = sorted(services().keys.list_keys(), key=lambda key: key.created_at, reverse=True)
    keys.sort(key=lambda key: key.state(now) != "active")
    return pages.page("keys.html", HTTPStatus.OK if issued is None else HTTPStatus.CREATED, keys=keys, issued=issued)
