"""Who is signed in at the console: how a session begins, what it holds, and everything that ends it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient

from app.bootstrap import Services, build_services
from app.console.entrance import local_target
from app.console.sessions import COOKIE
from app.errors import DatabaseUnavailable, Unauthenticated
from app.factory import Application, create_app
from app.identity.sessions import SESSION_HOURS, Session, SessionService
from app.stack.rotation import rotate
from app.stack.secret_files import write_missing
from tests.console.conftest import SIGN_IN, Visitor
from tests.factories.encoder import FakeEncoder
from tests.factories.statements import Sql

Come = Callable[..., Visitor]


def cookie_of(visitor: Visitor) -> str:
    cookie = visitor.client.get_cookie(COOKIE, path="/console")
    assert cookie is not None
    return cookie.value


def with_cookie(app: Application, cookie: str) -> FlaskClient:
    """Return a browser that has a cookie, and sends it wherever it goes."""
    client = app.test_client()
    client.set_cookie(COOKIE, cookie, path="/")
    return client


def forge(app: Application, **values: object) -> str:
    """Return a cookie with these values under the real key: what nobody outside can make."""
    serializer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    text = serializer.dumps(values)
    assert isinstance(text, str)
    return text


def test_key_opens_the_console_and_is_nowhere_in_the_cookie(admin: Visitor, services: Services) -> None:
    assert admin.is_signed_in()
    cookie = cookie_of(admin)
    assert admin.key not in cookie
    # It is signed, not secret: anybody may read what it says.
    with create_app(services.settings, services).test_request_context("/console/", headers={"Cookie": f"{COOKIE}={cookie}"}) as context:
        assert context.session is not None
        held = dict(context.session)
    assert set(held) <= {"session", "key", "began", "csrf_token", "_flashes"}
    assert admin.key not in str(held)


def test_cookie_is_out_of_reach_of_scripts_other_sites_and_the_api(visitor: Come) -> None:
    person = visitor("admin", signed_in=False)
    header = person.sign_in().headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/console"} <= set(header.split("; "))
    assert "Secure" not in header
    by_proxy = person.post(SIGN_IN, {"key": person.key}, X_Forwarded_Proto="https").headers["Set-Cookie"]
    assert "Secure" in by_proxy.split("; ")


def test_session_is_no_key_to_the_api_and_a_key_none_to_the_console(admin: Visitor, app: Application) -> None:
    assert admin.is_signed_in()
    cookie = cookie_of(admin)
    sent_everywhere = with_cookie(app, cookie)
    assert sent_everywhere.get("/console/").status_code == 200
    assert sent_everywhere.get("/queue").status_code == 401
    stranger = admin.client.application.test_client()
    assert stranger.get("/console/", headers={"X-API-Key": admin.key}).status_code == 303


def test_wrong_key_is_refused_with_advice(visitor: Come) -> None:
    person = visitor("admin", signed_in=False)
    for key in ("", "nxs_admin_wrong", "x" * 5000, "nxs_\0", "ключ"):
        answer = person.sign_in(key)
        assert answer.status_code == 401, key[:20]
        assert "not known" in answer.get_data(as_text=True)
        assert not person.is_signed_in()


def test_forged_cookie_is_nobody(app: Application, admin: Visitor) -> None:
    good = cookie_of(admin)
    body, stamp, signature = good.rpartition(".")[0].rpartition(".")[0], good.split(".")[-2], good.split(".")[-1]
    other_key = SecureCookieSessionInterface().get_signing_serializer(_with_key("another secret"))
    assert other_key is not None
    forged = other_key.dumps({"session": uuid4().hex, "key": uuid4().hex, "began": 0})
    for cookie in (f"{body}.{stamp}.{signature[::-1]}", f"x{good}", str(forged), "", "a.b.c", good[:-1]):
        answer = with_cookie(app, cookie).get("/console/")
        assert answer.status_code == 303, cookie
        assert answer.headers["Location"].startswith(SIGN_IN)


def _with_key(secret: str) -> Application:
    app = Application("x")
    app.secret_key = secret
    return app


def test_cookie_of_another_release_is_nobody_and_no_crash(app: Application) -> None:
    """Signed by this service, and not as this code would write it."""
    odd: list[dict[str, object]] = [
        {"session": "x", "key": "y", "began": 1},
        {"session": uuid4().hex},
        {"session": uuid4().hex, "key": 7, "began": 1},
        {"session": uuid4().hex, "key": uuid4().hex, "began": "z"},
        {"session": uuid4().hex, "key": uuid4().hex, "began": 10**30},
    ]
    for values in odd:
        assert with_cookie(app, forge(app, **values)).get("/console/").status_code == 303, values


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE memory_system.api_keys SET revoked_at = now() WHERE key_id = %s",
        "UPDATE memory_system.api_keys SET expires_at = now() WHERE key_id = %s",
        "DELETE FROM memory_system.api_keys WHERE key_id = %s",
    ],
    ids=["revoked", "expired", "gone"],
)
def test_session_ends_with_its_key_at_once(end: str, operator: Visitor, services: Services, sql: Sql) -> None:
    """At once: not when the authentication cache has forgotten it, which keeps a key for five seconds."""
    assert operator.is_signed_in()
    sql(end, services.keys.authenticate(operator.key).key_id)
    answer = operator.get("/console/dead")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"{SIGN_IN}?next=/console/dead")
    assert "session has ended" in operator.get(SIGN_IN).get_data(as_text=True)


def test_sign_out_ends_copies_of_the_cookie_too(admin: Visitor, app: Application) -> None:
    copy = with_cookie(app, cookie_of(admin))
    assert copy.get("/console/").status_code == 200
    assert admin.post("/console/sign-out").status_code == 303
    assert not admin.is_signed_in()
    assert copy.get("/console/").status_code == 303


def test_session_holds_in_every_process(admin: Visitor, services: Services) -> None:
    other = build_services(services.settings, load=lambda _: FakeEncoder())
    try:
        assert with_cookie(create_app(services.settings, other), cookie_of(admin)).get("/console/").status_code == 200
    finally:
        other.close()


def test_session_ends_by_itself(services: Services, admin: Visitor, app: Application) -> None:
    principal = services.keys.authenticate(admin.key)
    for hours, status in ((SESSION_HOURS - 1, 200), (SESSION_HOURS + 1, 303)):
        began = datetime.now(UTC) - timedelta(hours=hours)
        old = Session(uuid4(), principal.key_id, began)
        cookie = forge(app, session=old.session_id.hex, key=old.key_id.hex, began=int(began.timestamp()))
        assert with_cookie(app, cookie).get("/console/").status_code == status


def test_new_session_has_a_new_token_and_id(admin: Visitor) -> None:
    """Nobody can prepare a session for somebody else to sign in to."""
    token, cookie = admin.token(), cookie_of(admin)
    admin.sign_in()
    assert admin.post("/console/sign-out", token=token).status_code == 400
    assert cookie_of(admin) != cookie


def test_signing_in_and_out_stand_in_the_audit_log(admin: Visitor, services: Services) -> None:
    admin.post("/console/sign-out")
    signed_out, signed_in = services.keys.audit(2)
    assert (signed_in.action, signed_out.action) == ("sign in", "sign out")
    assert signed_in.subject == signed_out.subject
    assert signed_in.key_id == signed_out.key_id == services.keys.authenticate(admin.key).key_id
    assert admin.key not in str((signed_in, signed_out))


def test_sign_in_is_limited_by_address(visitor: Come) -> None:
    person = visitor("admin", signed_in=False)
    token = person.token()
    statuses = [person.post(SIGN_IN, {"key": "nxs_wrong"}, token=token).status_code for _ in range(25)]
    # A minute may end in between, and a new one begin.
    assert statuses.count(401) in range(10, 21)
    refused = person.post(SIGN_IN, {"key": person.key}, token=token)
    if refused.status_code == 429:
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert "Too many attempts" in refused.get_data(as_text=True)
    elsewhere = person.client.post(SIGN_IN, data={"key": person.key, "csrf_token": token}, environ_overrides={"REMOTE_ADDR": "203.0.113.9"})
    assert elsewhere.status_code == 303


def test_rate_limit_of_a_key_holds_at_the_console(services: Services, app: Application) -> None:
    key = services.keys.create(role="operator", name="x", agent_id=None, expires_days=None, rate_limit_per_minute=5).secret
    person = Visitor(app.test_client(), key)
    person.sign_in()
    statuses = [person.get("/console/dead").status_code for _ in range(12)]
    assert 429 in statuses
    assert "text/html" in person.get("/console/dead").content_type


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ("/console/dead?cause=a%20b", "/console/dead?cause=a%20b"),
        ("/console/episodes/00000000-0000-4000-8000-000000000001?agent_id=a", None),
        ("/console", None),
        ("//evil.example/console/", "/console/"),
        ("https://evil.example/console/", "/console/"),
        ("/\\evil.example/console/", "/console/"),
        ("/console/\\..\\..", "/console/"),
        ("/console/../health", "/console/"),
        ("/consoles", "/console/"),
        ("javascript:alert(1)", "/console/"),
        ("/console/\r\nSet-Cookie: a=b", "/console/"),
        ("\t//evil.example", "/console/"),
        ("", "/console/"),
    ],
)
def test_one_goes_on_to_a_page_of_the_console_only(wanted: str, target: str | None, layer_app: Application) -> None:
    with layer_app.test_request_context("/"):
        assert local_target(wanted) == (target or wanted)


def test_signing_in_leads_to_what_was_wanted_when_it_is_ours(visitor: Come) -> None:
    person = visitor("admin", signed_in=False)
    for wanted, target in (("/console/dead?cause=a%20b", "/console/dead?cause=a%20b"), ("//evil.example/console/", "/console/")):
        assert person.sign_in(next=wanted).headers["Location"] == target
        # Signed in already, the same.
        assert person.client.get(SIGN_IN, query_string={"next": wanted}).headers["Location"] == target
        person.post("/console/sign-out")


def test_page_asked_for_before_signing_in_is_shown_after(visitor: Come) -> None:
    person = visitor("admin", signed_in=False)
    sent = person.get("/console/dead?cause=a%20%26b")
    assert sent.headers["Location"] == f"{SIGN_IN}?next=/console/dead?cause%3Da%2520%2526b"
    form = person.get(sent.headers["Location"]).get_data(as_text=True)
    assert 'name="next" value="/console/dead?cause=a%20%26b"' in form


def test_link_from_another_site_loads_itself_again_instead_of_signing_out(admin: Visitor, app: Application) -> None:
    """SameSite=Strict keeps the cookie back at first; a new cookie for the form would take the place of the session's."""
    stranger = app.test_client()
    for path in ("/console/", SIGN_IN):
        answer = stranger.get(path, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200
        assert 'http-equiv="refresh"' in answer.get_data(as_text=True)
        assert "Set-Cookie" not in answer.headers
    assert admin.get("/console/", Sec_Fetch_Site="cross-site").status_code == 200


def test_console_without_a_database_says_so_and_lets_nobody_in(admin: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise DatabaseUnavailable("the database cannot be reached or gave up; try again")

    monkeypatch.setattr(SessionService, "key_of", fail)
    answer = admin.get("/console/")
    text = answer.get_data(as_text=True)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "cannot be reached" in text
    assert 'http-equiv="refresh" content="5"' in text
    assert "tries again by itself" in text
    said = ("PostgreSQL cannot be", "acknowledged is safe", "refused with 503", "stack status", "/health", "docs/troubleshooting.md")
    assert {words: words in text for words in said} == dict.fromkeys(said, True)


def test_page_says_that_it_tries_again_only_where_it_does(admin: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    token = admin.token()

    def fail(*_: object) -> object:
        raise DatabaseUnavailable("the database cannot be reached or gave up; try again")

    monkeypatch.setattr(SessionService, "key_of", fail)
    for answer in (admin.post("/console/dead/replay", {"all": "yes"}, token=token), admin.get("/console/live/queue", HX_Request="true")):
        text = answer.get_data(as_text=True)
        assert answer.status_code == 503
        assert "PostgreSQL cannot be reached" in text
        assert "tries again" not in text
        assert "http-equiv" not in text


def test_sign_out_that_cannot_be_written_keeps_the_session_and_says_so(
    admin: Visitor, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, token = with_cookie(app, cookie_of(admin)), admin.token()

    def fail(*_: object) -> object:
        raise DatabaseUnavailable("the database cannot be reached or gave up; try again")

    with monkeypatch.context() as outage:
        outage.setattr(SessionService, "end", fail)
        answer = admin.post("/console/sign-out", token=token)
        assert answer.status_code == 503
        assert "your session still holds" in answer.get_data(as_text=True)
        assert "You are signed out" not in answer.get_data(as_text=True)
    assert admin.is_signed_in()
    assert admin.post("/console/sign-out").status_code == 303
    assert not admin.is_signed_in()
    assert copy.get("/console/").status_code == 303


def test_session_service_knows_nobody_else(services: Services, admin: Visitor) -> None:
    session = services.sessions.begin(services.keys.authenticate(admin.key))
    assert services.sessions.key_of(session).role == "admin"
    services.sessions.end(session)
    for ended in (session, Session(uuid4(), UUID(int=7), datetime.now(UTC))):
        with pytest.raises(Unauthenticated):
            services.sessions.key_of(ended)


def test_rotated_session_key_ends_every_session_at_once_and_a_missing_file_none(services: Services, tmp_path: Path) -> None:
    settings = services.settings.model_copy(update={"secrets_dir": tmp_path})
    write_missing(settings)
    visitor = Visitor(
        create_app(settings, services).test_client(), services.keys.create(role="admin", name="a", agent_id=None, expires_days=None).secret
    )
    visitor.sign_in()
    assert visitor.is_signed_in()
    rotate(settings, ["console_session_key"], lambda _: None)
    assert not visitor.is_signed_in()
    visitor.sign_in()
    settings.secret_path("console_session_key").unlink()
    assert visitor.is_signed_in()
