"""An episode's life, and what became of a receipt."""

from http import HTTPStatus
from typing import Annotated, Any, cast
from uuid import UUID

import orjson
from flask import Response, redirect, request, session, url_for
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BeforeValidator

from app.api.authentication import find_agent
from app.api.integrity import verify_receipts
from app.api.schemas.episodes import EpisodePath
from app.api.schemas.integrity import VerifyBody
from app.api.services import services
from app.console import forms, life, pages, search
from app.episodes.models import EpisodeView
from app.errors import Conflict, Gone, InvalidRequest, NotFound
from app.fields import AgentId, QueryModel
from app.identity.permissions import Permission
from app.integrity.proofs import InclusionProof
from app.queue.dead import DeadRow

blueprint = APIBlueprint("episodes", __name__, doc_ui=False)


def _blank_to_none(value: Any) -> Any:
    return (value.strip() or None) if isinstance(value, str) else value


class Lookup(QueryModel):
    """Which episode; blanks count as absent, since a form sends them."""

    episode_id: Annotated[UUID | None, BeforeValidator(_blank_to_none)] = None
    agent_id: Annotated[AgentId | None, BeforeValidator(_blank_to_none)] = None


@blueprint.get("/episodes")
def show_episodes(query: Lookup) -> Response:
    """Ask for an episode or a receipt, and go on to the episode that was named."""
    if query.episode_id is not None:
        target = url_for("console.episodes.show_episode", episode_id=query.episode_id, agent_id=query.agent_id)
        return cast(Response, redirect(target, HTTPStatus.SEE_OTHER))
    return _form(None, "")


@blueprint.get("/episodes/<episode_id>")
def show_episode(path: EpisodePath, query: Lookup) -> Response:
    """Show an episode's life; its content only to whom the agent's memory is open."""
    agent_id = find_agent(query.agent_id)
    verdict = services().integrity.verdict_of(agent_id, path.episode_id)
    view = _view(agent_id, path.episode_id)
    dead = _dead_row(path.episode_id)
    proof = _proof(agent_id, path.episode_id)
    status = HTTPStatus.NOT_FOUND if verdict.verdict == "missing" else HTTPStatus.OK
    values = {"verdict": verdict, "view": view, "dead": dead, "proof": proof, "agent_id": agent_id}
    return pages.page("episode.html", status, steps=life.steps(verdict, view, dead, proof), **values)


@blueprint.post("/episodes/verify")
def verify_receipt() -> Response:
    """Say what became of the receipts that somebody pasted: one, a list, or the answer to a batch."""
    text = request.form.get("receipts", "")
    body = forms.check(VerifyBody, {"receipts": _receipts(text)})
    return _form(verify_receipts(find_agent(_one_agent(body)), body.receipts or []), text)


def _form(verdicts: Any, text: str) -> Response:
    chooses = pages.may(Permission.READ_MEMORY)
    agent_id = session.get("agent", "")
    return pages.page("episodes.html", verdicts=verdicts, text=text, agents=search.agents() if chooses else [], agent_id=agent_id)


def _receipts(text: str) -> Any:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidRequest("this is no JSON; paste a receipt as the service gave it") from None
    if isinstance(found, dict) and "items" in found:
        found = found["items"]
    return found if isinstance(found, list) else [found]


def _one_agent(body: VerifyBody) -> str | None:
    return next((receipt.agent_id for receipt in body.receipts or [] if receipt.agent_id is not None), None)


def _view(agent_id: str | None, episode_id: UUID) -> EpisodeView | None:
    if agent_id is None or not pages.may(Permission.READ_MEMORY):
        return None
    try:
        return services().episodes.get(agent_id, episode_id)
    except (Gone, NotFound):
        return None


def _dead_row(episode_id: UUID) -> DeadRow | None:
    if not pages.may(Permission.READ_QUEUE) or episode_id.int == 0:
        return None
    # Pages begin after an id: after the one before this one, the first row is this one's, if it has any.
    found = services().dead_rows.rows(None, UUID(int=episode_id.int - 1), 1).items
    return found[0] if found and found[0].target_id == episode_id else None


def _proof(agent_id: str | None, episode_id: UUID) -> InclusionProof | None:
    try:
        return services().proofs.prove(agent_id, episode_id)
    except (Conflict, NotFound):
        return None
