"""Routes of working memory."""

from typing import Any

from flask import Response, g
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app.api import pagination
from app.api.answers import json_answer
from app.api.authentication import require_agent
from app.api.schemas.episodes import AgentQuery
from app.api.schemas.working import (
    ContextAnswer,
    ContextBody,
    ContextListAnswer,
    ContextListQuery,
    ContextPath,
    ContextReadQuery,
    ForgottenContextAnswer,
    NewContextBody,
)
from app.api.services import services
from app.identity.permissions import Permission, require
from app.working.models import ContextPosition, ContextView, NewContext

blueprint = APIBlueprint("working", __name__, abp_tags=[Tag(name="working memory")])


def _context(view: ContextView) -> dict[str, Any]:
    return {
        "context_id": view.context_id,
        "agent_id": view.agent_id,
        "session_id": view.session_id,
        "context_type": view.context_type,
        "active_content": view.active_content,
        "priority": view.priority,
        "ttl_seconds": view.ttl_seconds,
        "expires_at": view.expires_at,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
    }


def _new_context(body: ContextBody) -> NewContext:
    return NewContext(
        active_content=body.active_content,
        ttl_seconds=body.ttl_seconds or services().settings.working_ttl_seconds,
        session_id=body.session_id,
        context_type=body.context_type,
        priority=body.priority,
    )


@blueprint.post("/memory/working", responses={201: ContextAnswer})
def create_context(body: NewContextBody) -> Response:
    """Keep a context under a new id; 409 when a live one has it."""
    agent_id = require_agent(body.agent_id)
    view = services().working.create(agent_id, body.context_id, _new_context(body))
    answer = json_answer(_context(view), 201)
    answer.headers["Location"] = f"/memory/working/{view.context_id}"
    return answer


@blueprint.put("/memory/working/<context_id>", responses={200: ContextAnswer, 201: ContextAnswer})
def put_context(path: ContextPath, body: ContextBody) -> Response:
    """Keep a context, replacing what is there: 201 when nothing was, else 200."""
    agent_id = require_agent(body.agent_id)
    view, is_new = services().working.put(agent_id, path.context_id, _new_context(body))
    return json_answer(_context(view), 201 if is_new else 200)


@blueprint.get("/memory/working/<context_id>", responses={200: ContextAnswer})
def get_context(path: ContextPath, query: ContextReadQuery) -> Response:
    """Show a context, from Redis when it holds it."""
    agent_id = require_agent(query.agent_id)
    if query.refresh:
        require(g.principal, Permission.WRITE_MEMORY)
    return json_answer(_context(services().working.get(agent_id, path.context_id, refresh=query.refresh)))


@blueprint.delete("/memory/working/<context_id>", responses={200: ForgottenContextAnswer})
def delete_context(path: ContextPath, query: AgentQuery) -> Response:
    """Delete a context from both stores."""
    agent_id = require_agent(query.agent_id)
    services().working.delete(agent_id, path.context_id)
    return json_answer({"context_id": path.context_id, "deleted": True})


def _position(cursor: str, listed: Any) -> ContextPosition:
    match pagination.decode(cursor, listed):
        case [int(rank), int(seq)] if 0 <= rank < 4 and 0 < seq < 2**63:
            return ContextPosition(rank, seq)
    raise pagination.refuse_position()


@blueprint.get("/memory/working", responses={200: ContextListAnswer})
def list_contexts(query: ContextListQuery) -> Response:
    """List live contexts, the most important first and the newest first among equals."""
    agent_id = require_agent(query.agent_id)
    filters = query.model_dump(include={"session_id", "context_type", "priority"})
    listed = ["working", filters]
    after = None if query.cursor is None else _position(query.cursor, listed)
    views, following = services().working.list_page(agent_id, query.limit, after=after, **filters)
    cursor = None if following is None else pagination.encode(listed, [following.rank, following.seq])
    return json_answer({"items": [_context(view) for view in views], "next_cursor": cursor})
