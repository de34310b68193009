"""Routes that store, read, change and delete episodes."""

from datetime import datetime
from typing import Any

from flask import Response, g, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app.api import pagination
from app.api.answers import json_answer
from app.api.authentication import require_agent
from app.api.new_episodes import idempotency_key, to_new_episode
from app.api.schemas.episodes import (
    AgentQuery,
    BatchAnswer,
    BatchBody,
    EpisodeAnswer,
    EpisodeBody,
    EpisodePath,
    ReceiptAnswer,
    RecentAnswer,
    RecentQuery,
)
from app.api.schemas.stored_episodes import (
    ContextQuery,
    ConversationAnswer,
    EpisodeChanges,
    ListAnswer,
    ListQuery,
    ProjectsAnswer,
    TombstoneAnswer,
)
from app.api.services import services
from app.episodes.models import EpisodeFilters, EpisodeView, Position, Receipt
from app.errors import InvalidRequest
from app.observability.tracing import traceparent_of

blueprint = APIBlueprint("episodes", __name__, abp_tags=[Tag(name="memory")])


def _receipt(receipt: Receipt) -> dict[str, Any]:
    return {
        "episode_id": receipt.episode_id,
        "seq": receipt.seq,
        "version": receipt.version,
        "agent_id": receipt.agent_id,
        "content_sha256": receipt.content_sha256,
        "nonce": receipt.nonce,
        "created_at": receipt.created_at,
        "embedding": {"state": receipt.embedding_state},
    }


def _episode(view: EpisodeView) -> dict[str, Any]:
    return {
        "episode_id": view.episode_id,
        "seq": view.seq,
        "version": view.version,
        "agent_id": view.agent_id,
        "session_id": view.session_id,
        "actor": view.actor,
        "action_type": view.action_type,
        "content": view.content,
        "content_sha256": view.content_sha256,
        "occurred_at": view.occurred_at,
        "importance_score": view.importance_score,
        "tags": view.tags,
        "metadata": view.metadata,
        "action_details": view.action_details,
        "context_state": view.context_state,
        "project": view.project,
        "language": view.language,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
        "embedding": {
            "state": view.embedding_state,
            "attempts": view.embedding_attempts,
            "last_error": view.embedding_last_error,
        },
    }


@blueprint.post("/memory/action", responses={201: ReceiptAnswer, 200: ReceiptAnswer})
def store_episode(body: EpisodeBody) -> Response:
    """Store one episode.

    Answers with its receipt: 201 when it is new, 200 when the same request was stored before under its idempotency key.
    """
    agent_id = require_agent(body.agent_id)
    episode = to_new_episode(body, idempotency_key(body))
    receipt = services().episodes.store(agent_id, episode, traceparent_of(g.span))
    answer = json_answer(_receipt(receipt), 200 if receipt.replayed else 201)
    answer.headers["Location"] = f"/memory/episodic/{receipt.episode_id}"
    return answer


@blueprint.post("/memory/actions", responses={201: BatchAnswer, 200: BatchAnswer})
def store_episodes(body: BatchBody) -> Response:
    """Store up to 1000 episodes of one agent, all or none.

    Receipts come in the order of the items; 200 when every one of them was stored before, else 201.
    """
    if "Idempotency-Key" in request.headers:
        raise InvalidRequest("a batch takes idempotency_key in each item, not the Idempotency-Key header")
    agent_id = require_agent(body.agent_id, *(item.agent_id for item in body.items))
    episodes = [to_new_episode(item, item.idempotency_key) for item in body.items]
    receipts = services().episodes.store_many(agent_id, episodes, traceparent_of(g.span))
    status = 200 if all(receipt.replayed for receipt in receipts) else 201
    return json_answer({"items": [_receipt(receipt) for receipt in receipts]}, status)


@blueprint.get("/memory/episodic/recent", responses={200: RecentAnswer})
def list_recent(query: RecentQuery) -> Response:
    """List the agent's latest episodes, the latest first."""
    agent_id = require_agent(query.agent_id)
    views = services().episodes.recent(agent_id, query.limit, query.session_id, query.tags)
    return json_answer({"items": [_episode(view) for view in views]})


@blueprint.get("/memory/episodic/<episode_id>", responses={200: EpisodeAnswer})
def get_episode(path: EpisodePath, query: AgentQuery) -> Response:
    """Show one episode and where its embedding stands."""
    agent_id = require_agent(query.agent_id)
    return json_answer(_episode(services().episodes.get(agent_id, path.episode_id)))


@blueprint.patch("/memory/episodic/<episode_id>", responses={200: ReceiptAnswer})
def change_episode(path: EpisodePath, body: EpisodeChanges) -> Response:
    """Change an episode.

    Answers with the receipt of what is stored now. New content is a new version, whose receipt supersedes the one before.
    """
    agent_id = require_agent(body.agent_id)
    receipt = services().episodes.change(agent_id, path.episode_id, body.changes(), body.expected_version, traceparent_of(g.span))
    return json_answer(_receipt(receipt))


@blueprint.delete("/memory/episodic/<episode_id>", responses={200: TombstoneAnswer})
def delete_episode(path: EpisodePath, query: AgentQuery) -> Response:
    """Delete an episode from every store; answers with its tombstone."""
    agent_id = require_agent(query.agent_id)
    return json_answer(services().episodes.delete(agent_id, path.episode_id))


@blueprint.get("/memory/episodic/<episode_id>/context", responses={200: ConversationAnswer})
def get_context(path: EpisodePath, query: ContextQuery) -> Response:
    """Show the turns around an episode in its session."""
    agent_id = require_agent(query.agent_id)
    context = services().episodes.context(agent_id, path.episode_id, query.before, query.after)
    return json_answer(
        {
            "before": [_episode(view) for view in context.before],
            "episode": _episode(context.episode),
            "after": [_episode(view) for view in context.after],
        }
    )


def _position(cursor: str, listed: Any) -> Position:
    match pagination.decode(cursor, listed):
        case [str(moment), int(seq)] if 0 < seq < 2**63:
            try:
                return Position(datetime.fromisoformat(moment), seq)
            except ValueError:
                pass
    raise pagination.refuse_position()


@blueprint.get("/memory/episodic", responses={200: ListAnswer})
def list_episodes(query: ListQuery) -> Response:
    """List the agent's episodes page by page, narrowed by filters."""
    agent_id = require_agent(query.agent_id)
    filters = EpisodeFilters(
        **query.model_dump(exclude={"limit", "cursor", "order", "agent_id"}, exclude_none=True),
    )
    listed = [filters.present(), query.order]
    after = None if query.cursor is None else _position(query.cursor, listed)
    views, following = services().episodes.list_page(agent_id, filters, query.limit, newest_first=query.order == "newest", after=after)
    cursor = None if following is None else pagination.encode(listed, [following.occurred_at, following.seq])
    return json_answer({"items": [_episode(view) for view in views], "next_cursor": cursor})


@blueprint.get("/projects", responses={200: ProjectsAnswer})
def list_projects(query: AgentQuery) -> Response:
    """List the agent's projects; one is made when an episode names it."""
    agent_id = require_agent(query.agent_id)
    return json_answer({"items": services().episodes.projects(agent_id)})
