"""Routes of semantic memories."""

from typing import Any

from flask import Response, g
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app.api import pagination
from app.api.answers import json_answer
from app.api.authentication import require_agent
from app.api.schemas.episodes import AgentQuery
from app.api.schemas.semantic import (
    ForgottenSemanticAnswer,
    SemanticAnswer,
    SemanticBody,
    SemanticChanges,
    SemanticListAnswer,
    SemanticListQuery,
    SemanticPath,
)
from app.api.services import services
from app.observability.tracing import traceparent_of
from app.semantic.models import NewSemanticMemory, SemanticView

blueprint = APIBlueprint("semantic", __name__, abp_tags=[Tag(name="semantic memory")])


def _memory(view: SemanticView) -> dict[str, Any]:
    return {
        "memory_id": view.memory_id,
        "version": view.version,
        "agent_id": view.agent_id,
        "concept": view.concept,
        "definition": view.definition,
        "relationships": view.relationships,
        "confidence_score": view.confidence_score,
        "source_episodes": view.source_episodes,
        "language": view.language,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
        "embedding": {"state": view.embedding_state, "attempts": view.embedding_attempts, "last_error": view.embedding_last_error},
    }


@blueprint.post("/memory/semantic", responses={201: SemanticAnswer})
def store_semantic(body: SemanticBody) -> Response:
    """Store something that the agent knows; it is embedded like an episode."""
    agent_id = require_agent(body.agent_id)
    memory = NewSemanticMemory(
        concept=body.concept,
        definition=body.definition,
        relationships=body.relationships,
        confidence_score=float(body.confidence_score),
        source_episodes=tuple(body.source_episodes),
        language=body.language,
    )
    view = services().semantic.store(agent_id, memory, traceparent_of(g.span))
    answer = json_answer(_memory(view), 201)
    answer.headers["Location"] = f"/memory/semantic/{view.memory_id}"
    return answer


@blueprint.get("/memory/semantic/<memory_id>", responses={200: SemanticAnswer})
def get_semantic(path: SemanticPath, query: AgentQuery) -> Response:
    """Show one semantic memory and where its embedding stands."""
    agent_id = require_agent(query.agent_id)
    return json_answer(_memory(services().semantic.get(agent_id, path.memory_id)))


@blueprint.patch("/memory/semantic/<memory_id>", responses={200: SemanticAnswer})
def change_semantic(path: SemanticPath, body: SemanticChanges) -> Response:
    """Change a semantic memory; another concept or definition is a new version, embedded anew."""
    agent_id = require_agent(body.agent_id)
    view = services().semantic.change(agent_id, path.memory_id, body.changes(), body.expected_version, traceparent_of(g.span))
    return json_answer(_memory(view))


@blueprint.delete("/memory/semantic/<memory_id>", responses={200: ForgottenSemanticAnswer})
def delete_semantic(path: SemanticPath, query: AgentQuery) -> Response:
    """Delete a semantic memory with its vector."""
    agent_id = require_agent(query.agent_id)
    services().semantic.delete(agent_id, path.memory_id)
    return json_answer({"memory_id": path.memory_id, "deleted": True})


@blueprint.get("/memory/semantic", responses={200: SemanticListAnswer})
def list_semantic(query: SemanticListQuery) -> Response:
    """List semantic memories, the newest first."""
    agent_id = require_agent(query.agent_id)
    listed = ["semantic", query.concept]
    after = None if query.cursor is None else pagination.decode_seq(query.cursor, listed)
    views, following = services().semantic.list_page(agent_id, query.limit, concept=query.concept, after=after)
    cursor = None if following is None else pagination.encode(listed, [following])
    return json_answer({"items": [_memory(view) for view in views], "next_cursor": cursor})
