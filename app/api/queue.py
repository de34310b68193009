"""Routes that show the queue and replay its dead rows."""

from flask import Response, g
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app.api.answers import json_answer
from app.api.schemas.queue import DeadCausesAnswer, DeadRowsAnswer, DeadRowsQuery, QueueAnswer, ReplayAnswer, ReplayBody
from app.api.services import services
from app.queue.dead import DeadSelection

blueprint = APIBlueprint("queue", __name__, abp_tags=[Tag(name="queue")])


@blueprint.get("/queue", responses={200: QueueAnswer})
def get_queue() -> Response:
    """Show the queue over all agents: rows by state and lane, who works on them, and how many workers it needs."""
    return json_answer(services().queue_status.status())


@blueprint.get("/queue/dead", responses={200: DeadCausesAnswer})
def get_dead_causes() -> Response:
    """Show the dead rows by cause, the most frequent first, with up to five examples each."""
    return json_answer(services().dead_rows.causes())


@blueprint.get("/queue/dead/rows", responses={200: DeadRowsAnswer})
def list_dead_rows(query: DeadRowsQuery) -> Response:
    """List dead rows, of one cause or of any, page by page."""
    return json_answer(services().dead_rows.rows(query.cause, query.cursor, query.limit))


@blueprint.post("/queue/dead/replay", responses={200: ReplayAnswer})
def replay_dead_rows(body: ReplayBody) -> Response:
    """Give dead rows a new set of attempts: those named, those of a cause, or all."""
    selection = DeadSelection(ids=None if body.ids is None else tuple(body.ids), cause=body.cause)
    return json_answer(services().dead_rows.replay(selection, body.limit, by=g.principal.key_id))
