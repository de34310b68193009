"""Dead rows: why they died, which they are, and back to work."""

from http import HTTPStatus
from typing import Any, cast

from flask import Response, flash, g, redirect, url_for
from flask_openapi3.blueprint import APIBlueprint

from app.api.schemas.queue import DeadRowsQuery, ReplayBody
from app.api.services import services
from app.console import forms, pages, words
from app.queue.dead import DeadSelection

blueprint = APIBlueprint("dead", __name__, doc_ui=False)

_ROWS_OF_PAGE = 50


@blueprint.get("/dead")
def show_dead(query: DeadRowsQuery) -> Response:
    """Show dead rows by cause, and a page of them, of one cause or of any."""
    causes = services().dead_rows.causes()
    rows = services().dead_rows.rows(query.cause, query.cursor, _ROWS_OF_PAGE)
    return pages.page("dead.html", causes=causes, rows=rows, query=query)


@blueprint.post("/dead/replay")
def replay() -> Response:
    """Give dead rows a new set of attempts: those chosen, those of a cause, or all."""
    values: dict[str, Any] = {name: found if name == "ids" else found[-1] for name, found in forms.filled().items()}
    if values.get("all") == "yes":
        values["all"] = True
    body = forms.check(ReplayBody, values)
    selection = DeadSelection(ids=None if body.ids is None else tuple(body.ids), cause=body.cause)
    done = services().dead_rows.replay(selection, body.limit, by=g.principal.key_id)
    flash(*_said(done.replayed, done.remaining))
    return cast(Response, redirect(url_for("console.dead.show_dead"), HTTPStatus.SEE_OTHER))


def _said(replayed: int, remaining: int) -> tuple[str, str]:
    """Return what to say of a replay, and in which tone."""
    if not replayed:
        return "No row was replayed: none of these is dead any more.", "warn"
    rows = "1 row has" if replayed == 1 else f"{words.count(replayed)} rows have"
    left = f" {words.count(remaining)} of the same choice are dead still: replay again." if remaining else ""
    return f"{rows} a new set of attempts, and the workers have been told.{left}", "good"
