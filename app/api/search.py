"""The route that finds memories."""

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app.api.answers import json_answer
from app.api.authentication import require_agent
from app.api.schemas.search import FiltersBody, SearchBody, SearchResultsAnswer
from app.api.services import services
from app.episodes.models import EpisodeFilters
from app.errors import InvalidRequest
from app.search.query import SearchQuery

blueprint = APIBlueprint("search", __name__, abp_tags=[Tag(name="memory")])


def _filters(filters: FiltersBody, project: str | None) -> EpisodeFilters:
    if project is not None and filters.project not in (None, project):
        raise InvalidRequest("project and filters.project differ; send one")
    return EpisodeFilters(
        tags_any=None if filters.tags_any is None else tuple(filters.tags_any),
        tags_all=None if filters.tags_all is None else tuple(filters.tags_all),
        session_id=filters.session_id,
        actor=filters.actor,
        action_type=filters.action_type,
        project=project or filters.project,
        occurred_after=filters.occurred_after,
        occurred_before=filters.occurred_before,
        min_importance=filters.min_importance,
        metadata=filters.metadata,
    )


def to_query(body: SearchBody) -> SearchQuery:
    """Return what a body asks for.

    Raises:
        InvalidRequest: It names two different projects.
    """
    return SearchQuery(
        query=body.query,
        limit=body.limit,
        mode=body.mode,
        min_score=body.min_score,
        memory_types=tuple(dict.fromkeys(body.memory_types)),
        filters=_filters(body.filters, body.project),
        recency_weight=body.recency_weight,
        importance_weight=body.importance_weight,
    )


@blueprint.post("/memory/search", responses={200: SearchResultsAnswer})
def search_memory(body: SearchBody) -> Response:
    """Find memories by meaning, by words, or both.

    What was stored before the request is found by its words at once; `pending_embeddings` says how many
    of the agent's episodes cannot be found by meaning yet.
    """
    agent_id = require_agent(body.agent_id)
    return json_answer(services().search.search(agent_id, to_query(body)))
