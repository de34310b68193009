"""Routes that manage API keys and show the audit log."""

from datetime import UTC, datetime
from typing import Any

from flask import Response, g
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app.api.answers import json_answer
from app.api.schemas.keys import AuditAnswer, AuditQuery, IssuedKeyAnswer, KeyAnswer, KeyBody, KeyPath, KeysAnswer, RotateBody
from app.api.services import services
from app.identity.models import ApiKey, IssuedKey

blueprint = APIBlueprint("keys", __name__, abp_tags=[Tag(name="administration")])


def _key(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "role": key.role,
        "agent_id": key.agent_id,
        "state": key.state(datetime.now(UTC)),
        "rate_limit_per_minute": key.rate_limit_per_minute,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


def _issued(issued: IssuedKey) -> dict[str, Any]:
    return {"key": issued.secret, **_key(issued.key)}


@blueprint.post("/keys", responses={201: IssuedKeyAnswer})
def create_key(body: KeyBody) -> Response:
    """Issue a key; it is shown in this answer and never again."""
    issued = services().keys.create(
        role=body.role,
        name=body.name,
        agent_id=body.agent_id,
        expires_days=body.expires_days,
        rate_limit_per_minute=body.rate_limit_per_minute,
        by=g.principal.key_id,
    )
    return json_answer(_issued(issued), 201)


@blueprint.get("/keys", responses={200: KeysAnswer})
def list_keys() -> Response:
    """List every key, oldest first; revoked and expired ones too."""
    return json_answer({"items": [_key(key) for key in services().keys.list_keys()]})


@blueprint.delete("/keys/<key_id>", responses={200: KeyAnswer})
def revoke_key(path: KeyPath) -> Response:
    """Revoke a key; every process follows within AUTHENTICATION_CACHE_SECONDS."""
    return json_answer(_key(services().keys.revoke(path.key_id, g.principal.key_id)))


@blueprint.post("/keys/<key_id>/rotate", responses={201: IssuedKeyAnswer})
def rotate_key(path: KeyPath, body: RotateBody) -> Response:
    """Issue a key like another one, and let that one end, at once or after a grace."""
    return json_answer(_issued(services().keys.rotate(path.key_id, body.grace_seconds, g.principal.key_id)), 201)


@blueprint.get("/audit", responses={200: AuditAnswer})
def get_audit(query: AuditQuery) -> Response:
    """Show administrative actions, the latest first: keys, agents forgotten, dead rows replayed."""
    return json_answer({"items": services().keys.audit(query.limit, query.before)})
