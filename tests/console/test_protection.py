"""What keeps the console's pages from other sites and from what is stored: tokens, headers, escaping, errors as pages."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from app.bootstrap import Services
from app.factory import Application
from tests.console.conftest import SIGN_IN, Visitor
from tests.console.test_access import PAGES
from tests.factories.episodes import new_episode
from tests.factories.gunicorn import running
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>{{1117*1117}}'</textarea>"
POSTS = [path for method, path, _, _ in PAGES.values() if method == "POST"]


def assert_inert(text: str) -> None:
    """Raise AssertionError when something hostile came through as HTML."""
    for alive in ("<script>alert", "<img src=x", "onerror=alert(1)>{{", ">1247689"):
        assert alive not in text, text[max(0, text.find(alive) - 200) : text.find(alive) + 200]
    # The page's own scripts are the only ones.
    assert re.findall(r"<script(?![^>]*src=\"/console/static/)", text) == []
    assert not re.search(r"\s(on\w+|style)=\"", text)


def test_form_without_its_token_does_nothing(admin: Visitor, services: Services) -> None:
    before = services.keys.audit(100)
    for path in (*POSTS, SIGN_IN, "/console/sign-out", "/console/nothing"):
        for token in ("", "wrong", admin.token()[:-1]):
            answer = admin.post(path, {"all": "yes", "role": "admin", "name": "x", "key": admin.key}, token=token)
            assert (answer.status_code, answer.content_type) == (400, "text/html; charset=utf-8"), path
    assert services.keys.audit(100) == before
    assert admin.is_signed_in()


def test_token_of_somebody_else_does_nothing(admin: Visitor, operator: Visitor) -> None:
    assert admin.post("/console/dead/replay", {"all": "yes"}, token=operator.token()).status_code == 400
    assert admin.post("/console/dead/replay", {"all": "yes"}).status_code == 303
    assert admin.client.post("/console/dead/replay", data={"all": "yes"}, headers={"X-CSRFToken": admin.token()}).status_code == 303


def test_form_of_another_site_does_nothing_even_with_the_token(admin: Visitor) -> None:
    for site in ("cross-site", "same-site", "none"):
        assert admin.post("/console/dead/replay", {"all": "yes"}, Sec_Fetch_Site=site).status_code == 400
    assert admin.post("/console/dead/replay", {"all": "yes"}, Sec_Fetch_Site="same-origin").status_code == 303


def test_no_page_changes_anything_when_it_is_only_opened(admin: Visitor, app: Application) -> None:
    for path in [*POSTS, "/console/sign-out"]:
        assert admin.get(path).status_code in {200, 404, 422}, path
    assert admin.is_signed_in()


def test_every_answer_carries_its_headers(admin: Visitor, app: Application) -> None:
    needed = {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "script-src 'self'"}
    for path in ("/console/", "/console/dead", "/console/nothing", SIGN_IN, "/console/static/console.css", "/console/static/nothing"):
        for visitor in (admin, Visitor(app.test_client(), "")):
            headers = visitor.get(path).headers
            policy = headers["Content-Security-Policy"]
            assert needed <= set(policy.split("; ")), path
            assert "unsafe" not in policy
            assert headers.get_all("X-Frame-Options") == ["DENY"]
            assert headers.get_all("X-Content-Type-Options") == ["nosniff"]
            assert headers.get_all("Referrer-Policy") == ["same-origin"]
            assert len(headers.get_all("Cache-Control")) == 1, path
            assert headers["X-Request-ID"]


def test_pages_are_kept_nowhere_and_static_files_until_they_change(admin: Visitor) -> None:
    page = admin.get("/console/")
    assert page.headers["Cache-Control"] == "no-store"
    files = re.findall(r"/console/static/[\w.]+\?v=\w+", page.get_data(as_text=True))
    assert len(files) == 4
    for file in files:
        answer = admin.get(file)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert "no-cache" in admin.get(file.partition("?")[0]).headers["Cache-Control"]


def test_nothing_is_loaded_from_elsewhere(admin: Visitor) -> None:
    for _, path, _, statuses in PAGES.values():
        text = admin.get(path).get_data(as_text=True)
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text), path
        assert statuses


def test_shipped_script_is_the_published_one_with_its_licence() -> None:
    folder = Path(__file__).resolve().parents[2] / "app" / "console" / "static"
    assert "Zero-Clause BSD" in (folder / "htmx-LICENSE.txt").read_text()
    assert 'this.version="4.0.1"' in (folder / "htmx.min.js").read_text()


@pytest.fixture
def hostile_world(services: Services, workshop: Workshop, sql: Sql) -> str:
    """An episode, a key and dead rows whose every word is hostile; returns the episode's id."""
    receipt = services.episodes.store(
        "alice",
        new_episode(
            f"kettle {HOSTILE}",
            actor=HOSTILE,
            session_id=HOSTILE,
            tags=(HOSTILE,),
            action_type=HOSTILE,
            project=HOSTILE,
            metadata={"m": HOSTILE},
        ),
    )
    workshop.drain()
    services.keys.create(role="operator", name=HOSTILE, agent_id=None, expires_days=None)
    sql("UPDATE memory_system.embeddings_queue SET state = 'dead', last_error = %s, processed_at = now()", HOSTILE)
    sql("UPDATE memory_system.workers SET worker_id = worker_id || %s, problem = %s, heartbeat_at = now()", HOSTILE, HOSTILE)
    sql(
        "INSERT INTO memory_system.audit_log (action, subject, details) VALUES (%s, %s, jsonb_build_object(%s::text, %s::text))",
        *[HOSTILE] * 4,
    )
    sql(
        "INSERT INTO memory_system.reconciliation_runs (kind, found, error) VALUES ('working', jsonb_build_object(%s::text, 1), %s)",
        HOSTILE,
        HOSTILE,
    )
    return str(receipt.episode_id)


def test_what_is_stored_comes_out_as_text(admin: Visitor, hostile_world: str) -> None:
    for path in (
        "/console/",
        "/console/live/queue",
        "/console/live/health",
        "/console/dead",
        f"/console/episodes/{hostile_world}?agent_id=alice",
        "/console/integrity",
        "/console/keys",
        "/console/audit",
    ):
        answer = admin.get(path)
        assert answer.status_code == 200, path
        assert "&lt;script&gt;alert" in answer.get_data(as_text=True), path
        assert_inert(answer.get_data(as_text=True))
    for partial in ({}, {"HX_Request": "true"}):
        found = admin.post("/console/search", {"query": f"kettle {HOSTILE}", "agent_id": "alice", "mode": "keyword"}, **partial)
        text = found.get_data(as_text=True)
        assert found.status_code == 200
        assert "1 result" in text
        assert_inert(text)


def test_what_is_asked_for_comes_back_as_text(admin: Visitor, visitor: Callable[..., Visitor]) -> None:
    for answer in (
        admin.post("/console/search", {"query": HOSTILE, "agent_id": "alice"}),
        admin.post("/console/search", {"query": "x", "agent_id": HOSTILE}),
        admin.post("/console/search", {"query": "x", "agent_id": HOSTILE}, HX_Request="true"),
        admin.post("/console/search", {"query": "x", "agent_id": "a", "mode": HOSTILE, HOSTILE: HOSTILE}),
        admin.post("/console/episodes/verify", {"receipts": HOSTILE}),
        admin.post("/console/keys", {"role": HOSTILE, "name": HOSTILE}),
        admin.post("/console/keys", {"role": "operator", "name": HOSTILE}),
        admin.client.get("/console/dead", query_string={"cause": HOSTILE}),
        admin.client.get("/console/dead", query_string={"cursor": HOSTILE}),
        admin.client.get("/console/dead", query_string={HOSTILE: HOSTILE}),
        admin.client.get("/console/episodes", query_string={"episode_id": HOSTILE}),
        admin.client.get("/console/episodes/" + HOSTILE.replace("/", "")),
        admin.client.get("/console/" + HOSTILE),
        visitor("admin", signed_in=False).sign_in(HOSTILE, next=HOSTILE),
    ):
        assert answer.status_code in {200, 201, 401, 404, 422}
        assert_inert(answer.get_data(as_text=True))


def test_errors_are_pages_that_say_what_to_do(admin: Visitor) -> None:
    for method, path, status in (
        ("GET", "/console/nothing", 404),
        ("GET", "/console/episodes/nothing", 422),
        ("DELETE", "/console/keys/x", 404),
        ("GET", "/console/dead?limit=0", 422),
        ("GET", "/console/dead?other=1", 422),
        ("GET", "/console/audit?limit=1001", 422),
        ("GET", "/console/?next=x", 422),
        ("GET", "/console/dead?cause=a&cause=b", 422),
    ):
        answer = admin.client.open(path, method=method, headers={"X-CSRFToken": admin.token()})
        text = answer.get_data(as_text=True)
        assert (answer.status_code, answer.content_type) == (status, "text/html; charset=utf-8"), path
        assert "<h1>" in text
        assert answer.headers["X-Request-ID"] in text


def test_short_address_leads_to_the_first_page(admin: Visitor) -> None:
    answer = admin.get("/console")
    assert answer.status_code == 308
    assert answer.headers["Location"].endswith("/console/")


def test_form_that_is_too_large_is_a_page(admin: Visitor) -> None:
    answer = admin.post("/console/episodes/verify", {"receipts": "x" * 9_000_000})
    assert (answer.status_code, answer.content_type) == (413, "text/html; charset=utf-8")


def test_crash_is_a_page_without_details(admin: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("app.queue.dead.DeadRowService.causes", crash)
    answer = admin.get("/console/dead")
    assert answer.status_code == 500
    assert "secret detail" not in answer.get_data(as_text=True)
    assert "request id" in answer.get_data(as_text=True)


def test_script_whose_session_has_ended_is_sent_to_sign_in(visitor: Callable[..., Visitor]) -> None:
    answer = visitor("admin", signed_in=False).get("/console/live/health", HX_Request="true")
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, SIGN_IN)


def test_console_is_not_in_the_description_and_its_labels_are_bounded(admin: Visitor) -> None:
    assert not [path for path in admin.get("/openapi.json").get_json()["paths"] if "console" in path]
    for number in range(3):
        admin.get(f"/console/episodes/7b0c4f9a-3c1d-4a57-9d7e-{number:012x}")
        admin.get(f"/console/nothing/{number}")
    text = admin.get("/metrics").get_data(as_text=True)
    assert 'url_rule="/console/episodes/<episode_id>"' in text
    assert 'url_rule="/console/<path:rest>"' in text
    assert "nothing/1" not in text


def test_api_takes_no_notice_of_the_console(admin: Visitor, services: Services) -> None:
    """Without a cookie of its own, without a session, without a token."""
    answer = admin.client.application.test_client().post(
        "/memory/action", json={"content": "x", "agent_id": "alice"}, headers={"X-API-Key": admin.key}
    )
    assert answer.status_code == 201
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.headers.get("Vary", "")


def test_form_that_stops_halfway_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "console_session_key.txt").write_text("a secret\n")
    with running(tmp_path) as server:
        head = f"POST {SIGN_IN} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        answer = server.raw((head + "Content-Length: 1000\r\n\r\nkey=").encode())
        assert answer.startswith(b"HTTP/1.1 4"), answer[:300]
        assert b"<h1>" in answer
        answer = server.raw((head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n").encode())
        assert answer.startswith(b"HTTP/1.1 4"), answer[:300]
        assert server.is_alive()
        assert "Traceback" not in server.log()
