"""The console as a whole: its pages under /console, what protects them from other sites, and errors as pages."""

from http import HTTPStatus
from typing import cast

import structlog
from flask import Blueprint, Flask, Response, flash, redirect, request, session, url_for
from flask_wtf.csrf import CSRFError, CSRFProtect
from gunicorn.http.errors import ParseException
from jinja2 import StrictUndefined
from werkzeug.exceptions import BadRequest, ClientDisconnected, HTTPException, NotFound, RequestTimeout

from app.api.problems import status_of
from app.api.services import services
from app.config import Settings
from app.console import dead, entrance, episodes, integrity, keys, overview, pages, search, sessions
from app.console.entrance import arrives_from_elsewhere
from app.errors import DatabaseUnavailable, NexusError, RateLimited, Unauthenticated, Unavailable

NAME = "console"
"""The outermost blueprint; every page's endpoint begins with it."""

identify = sessions.identify

# Nothing but what this server ships: no script or style in a page, no frame, no form that leads elsewhere.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _PAGE_POLICY,
    # Not no-referrer, under which a browser would send its forms with the origin null.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_CONTENT_TYPES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "htmx-LICENSE.txt": "text/plain; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_CSRF = CSRFProtect()
_WHAT_TO_DO = {
    400: "Reload the page before it and send the form again.",
    403: "Sign in with a key that may do this, or ask an administrator.",
    404: "Look at the address again, or begin at the overview.",
    409: "Reload the page to see how things stand now.",
    422: "Go back and change what it names.",
    429: "Wait a moment, then reload the page.",
    500: "The server's log says what happened, under the request id below.",
    503: "Go back and try again in a moment; nothing is lost.",
}
_TRIES_AGAIN = "This page tries again by itself, every 5 seconds."

blueprint = Blueprint(NAME, __name__, url_prefix="/console", template_folder="templates")
for part in (entrance, overview, dead, search, episodes, integrity, keys):
    blueprint.register_blueprint(part.blueprint)


@blueprint.before_request
def protect() -> None:
    """Refuse a change that was not sent from a page of the console to whom it was shown.

    Raises:
        BadRequest: It comes from another site, or without the page's token.
        RequestTimeout: The form did not arrive in time.
    """
    if request.method in _SAFE_METHODS:
        return
    # What browsers say by themselves; a page of another site cannot change it, and what is no browser does not send it.
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise BadRequest("the form was sent from another site")
    try:
        _ = request.form
    except (TimeoutError, ClientDisconnected):
        raise RequestTimeout("the form did not arrive in time") from None
    except ParseException:
        raise BadRequest("the form is not well-formed HTTP") from None
    _CSRF.protect()


@blueprint.after_request
def add_headers(answer: Response) -> Response:
    """Add what keeps a page to itself."""
    answer.headers.update(_HEADERS)
    answer.headers.setdefault("Cache-Control", "no-store")
    return answer


@blueprint.get("/static/<name>")
def static(name: str) -> Response:
    """Return a script, style or picture of the pages, which a browser may keep when its address names its content."""
    if name not in _CONTENT_TYPES:
        raise NotFound
    answer = Response(pages.static_file(name), content_type=_CONTENT_TYPES[name])
    is_named_by_content = request.args.get("v") == pages.version_of(name)
    answer.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_named_by_content else "no-cache"
    return answer


blueprint.context_processor(pages.values)


@blueprint.errorhandler(Unauthenticated)
def ask_to_sign_in(error: Unauthenticated) -> Response:
    """Lead whoever is not signed in, or no longer, to where one signs in, and back afterwards."""
    if arrives_from_elsewhere():
        return pages.page("arrive.html")
    if "session" in session:
        session.clear()
        flash("Your session has ended: sign in again.", "warn")
    wanted = request.full_path.rstrip("?") if request.method == "GET" and not pages.is_partial() else None
    sign_in = url_for("console.entrance.show_sign_in", next=wanted)
    if pages.is_partial():
        answer = Response(status=HTTPStatus.UNAUTHORIZED)
        answer.headers["HX-Redirect"] = sign_in
        return answer
    return cast(Response, redirect(sign_in, HTTPStatus.SEE_OTHER))


@blueprint.errorhandler(NexusError)
def show_error(error: NexusError) -> Response:
    """Show what the service says of a request that failed."""
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        structlog.get_logger().warning("request_failed", code=error.code, exc_info=error)
    answer = _error_page(status, error.code, error.message, is_outage=isinstance(error, DatabaseUnavailable))
    if isinstance(error, Unavailable | RateLimited):
        answer.headers["Retry-After"] = str(error.retry_after_seconds)
    return answer


@blueprint.errorhandler(HTTPException)
def show_http_error(error: HTTPException) -> Response:
    """Show what is wrong with a request as such."""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    if isinstance(error, CSRFError):
        message = "the form was opened too long ago, or before you signed in"
    elif status == HTTPStatus.NOT_FOUND:
        message = "there is no such page"
    else:
        message = error.description or HTTPStatus(status).phrase
    return _error_page(status, HTTPStatus(status).phrase.lower().replace(" ", "_"), message)


@blueprint.errorhandler(Exception)
def show_crash(error: Exception) -> Response:
    """Show that something broke, and how to find it in the log."""
    structlog.get_logger().error("request_crashed", exc_info=error)
    return _error_page(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "an unexpected error happened")


def _error_page(status: int, code: str, message: str, *, is_outage: bool = False) -> Response:
    template = "error_part.html" if pages.is_partial() else "error.html"
    # A form that was sent is not sent again by itself, and a part of a page loads nothing.
    retries = status == HTTPStatus.SERVICE_UNAVAILABLE and request.method == "GET" and not pages.is_partial()
    advice = _TRIES_AGAIN if retries else _WHAT_TO_DO.get(status, "Go back, or begin at the overview.")
    values = {"title": HTTPStatus(status).phrase, "code": code, "message": message, "advice": advice, "retries": retries}
    return pages.page(template, status, status=status, is_outage=is_outage, port=services().settings.port, **values)


def install(app: Flask, settings: Settings) -> None:
    """Add the console to the application; templates are read when the first page is asked for."""
    app.config.setdefault("WTF_CSRF_CHECK_DEFAULT", False)  # Only the console has sessions; `protect` asks for it there.
    app.config.setdefault("WTF_CSRF_TIME_LIMIT", None)  # A token holds as long as its session.
    # It would compare the Referer with the Host, which a proxy may have changed; Sec-Fetch-Site and SameSite do not depend on that.
    app.config.setdefault("WTF_CSRF_SSL_STRICT", False)
    app.jinja_options = {**app.jinja_options, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    sessions.install(app, settings)
    _CSRF.init_app(app)
    app.register_blueprint(blueprint)
