"""Where one signs in and out of the console, and what is shown where there is no page."""

from http import HTTPStatus
from typing import NoReturn, cast
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid5

from flask import Blueprint, Response, flash, redirect, request, session, url_for
from werkzeug.exceptions import NotFound

from app.api.services import services
from app.console import pages, sessions
from app.errors import DatabaseUnavailable, RateLimited, Unauthenticated

blueprint = Blueprint("entrance", __name__)

ATTEMPTS_PER_MINUTE = 10
"""Sign-ins that one address may try. A key cannot be guessed anyway: this keeps the tries from the database and the log."""

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def arrives_from_elsewhere() -> bool:
    """Return whether a link on another site led here, so that the browser kept the session's cookie back.

    A page that loads itself again makes it a visit from this site, with the cookie.
    """
    return (
        request.method == "GET"
        and request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}
        and sessions.COOKIE not in request.cookies
        and not pages.is_partial()
    )


def local_target(wanted: str | None) -> str:
    """Return a page of the console to go on to: the wanted one when it is one, else the overview."""
    overview = url_for("console.overview.show_overview")
    if not wanted or any(character in wanted for character in "\\\r\n\t") or not wanted.isprintable():
        return overview
    parts = urlsplit(wanted)
    is_ours = not parts.scheme and not parts.netloc and (parts.path == sessions.PATH or parts.path.startswith(f"{sessions.PATH}/"))
    return wanted if is_ours and ".." not in parts.path else overview


@blueprint.get("/sign-in")
def show_sign_in() -> Response:
    """Show the form; whoever is signed in goes on."""
    if arrives_from_elsewhere():
        return pages.page("arrive.html")
    wanted = request.args.get("next")
    if sessions.current() is not None:
        return _go(local_target(wanted))
    return pages.page("sign_in.html", next=wanted or "", problem=None)


@blueprint.post("/sign-in")
def sign_in() -> Response:
    """Begin a session with a key; the key itself is kept nowhere."""
    wanted = request.form.get("next")
    try:
        services().rate_limiter.count(uuid5(NAMESPACE_URL, f"console:{request.remote_addr}"), ATTEMPTS_PER_MINUTE)
        principal = services().keys.authenticate(request.form.get("key", "").strip())
    except RateLimited as error:
        problem = f"Too many attempts from your address. Try again in {error.retry_after_seconds} s."
        answer = pages.page("sign_in.html", HTTPStatus.TOO_MANY_REQUESTS, next=wanted or "", problem=problem)
        answer.headers["Retry-After"] = str(error.retry_after_seconds)
        return answer
    except Unauthenticated:
        problem = "This key is not known, or it was revoked or has expired. Check it, or ask an administrator for a new one."
        return pages.page("sign_in.html", HTTPStatus.UNAUTHORIZED, next=wanted or "", problem=problem)
    sessions.begin(services().sessions.begin(principal))
    return _go(local_target(wanted))


@blueprint.post("/sign-out")
def sign_out() -> Response:
    """End the session, also for whoever has a copy of its cookie.

    Raises:
        DatabaseUnavailable: It could not be ended: the cookie stays, for one to try again.
    """
    held = sessions.current()
    if held is not None:
        try:
            services().sessions.end(held)
        except DatabaseUnavailable as error:
            raise DatabaseUnavailable("you are not signed out: your session still holds; sign out again once PostgreSQL is back") from error
    session.clear()
    if held is not None:
        flash("You are signed out.", "good")
    return _go(url_for("console.entrance.show_sign_in"))


@blueprint.route("/<path:rest>", methods=_METHODS)
def get_nothing(rest: str) -> NoReturn:
    """Say, as a page, that there is none."""
    raise NotFound


def _go(target: str) -> Response:
    return cast(Response, redirect(target, HTTPStatus.SEE_OTHER))
