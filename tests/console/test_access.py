"""The console never lets a key do what its role may not do by the API: every page, every role, and another agent's memory."""

from collections.abc import Callable
from typing import Any

import pytest

from app.api.policies import ROUTE_POLICIES, Access
from app.bootstrap import Services
from app.factory import Application
from app.identity.models import KeyRole
from app.identity.permissions import GRANTS, Permission
from tests.console.conftest import SIGN_IN, Visitor
from tests.factories.episodes import new_episode
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

Come = Callable[..., Visitor]
SECRET = "xyzzy-plugh"
ID = "7b0c4f9a-3c1d-4a57-9d7e-0d3a6b6f0a11"
ROLES: tuple[KeyRole, ...] = ("admin", "agent", "readonly", "operator")

# Method, path, form, and the status for each role in the order above.
PAGES: dict[str, tuple[str, str, dict[str, str], tuple[int, int, int, int]]] = {
    "console.overview.show_overview": ("GET", "/console/", {}, (200, 200, 200, 200)),
    "console.overview.show_health": ("GET", "/console/live/health", {}, (200, 200, 200, 200)),
    "console.overview.show_queue": ("GET", "/console/live/queue", {}, (200, 403, 403, 200)),
    "console.dead.show_dead": ("GET", "/console/dead", {}, (200, 403, 403, 200)),
    "console.dead.replay": ("POST", "/console/dead/replay", {"all": "yes"}, (303, 403, 403, 303)),
    "console.search.show_search": ("GET", "/console/search", {}, (200, 200, 200, 403)),
    "console.search.find": ("POST", "/console/search", {"query": "x"}, (422, 200, 200, 403)),
    "console.episodes.show_episodes": ("GET", "/console/episodes", {}, (200, 200, 200, 200)),
    "console.episodes.show_episode": ("GET", f"/console/episodes/{ID}", {}, (404, 404, 404, 404)),
    "console.episodes.verify_receipt": ("POST", "/console/episodes/verify", {"receipts": "[]"}, (422, 422, 422, 422)),
    "console.integrity.show_integrity": ("GET", "/console/integrity", {}, (200, 403, 403, 200)),
    "console.keys.show_keys": ("GET", "/console/keys", {}, (200, 403, 403, 403)),
    "console.keys.create": ("POST", "/console/keys", {"role": "operator", "name": "x"}, (201, 403, 403, 403)),
    "console.keys.revoke": ("POST", f"/console/keys/{ID}/revoke", {}, (404, 403, 403, 403)),
    "console.keys.rotate": ("POST", f"/console/keys/{ID}/rotate", {}, (404, 403, 403, 403)),
    "console.keys.show_audit": ("GET", "/console/audit", {}, (200, 403, 403, 403)),
}


def visit(visitor: Visitor, endpoint: str) -> Any:
    method, path, form, _ = PAGES[endpoint]
    return visitor.get(path) if method == "GET" else visitor.post(path, dict(form))


def test_every_page_is_in_the_matrix() -> None:
    pages = {name for name, policy in ROUTE_POLICIES.items() if name.startswith("console.") and policy is not Access.OPEN}
    assert pages == PAGES.keys()


def test_each_role_sees_what_its_permissions_say(visitor: Come) -> None:
    people = {role: visitor(role, "alice" if role in {"agent", "readonly"} else None) for role in ROLES}
    for endpoint, (_, _, _, statuses) in PAGES.items():
        policy = ROUTE_POLICIES[endpoint]
        assert isinstance(policy, Permission)
        for role, status in zip(ROLES, statuses, strict=True):
            answer = visit(people[role], endpoint)
            assert answer.status_code == status, (endpoint, role)
            assert (status == 403) == (policy not in GRANTS[role]), (endpoint, role)
            if status != 303:
                assert answer.content_type == "text/html; charset=utf-8"


def test_nobody_sees_anything_without_signing_in(visitor: Come, services: Services) -> None:
    stranger = visitor("admin", signed_in=False)
    before = services.keys.audit(100)
    for endpoint in PAGES:
        answer = visit(stranger, endpoint)
        assert answer.status_code == 303, endpoint
        assert answer.headers["Location"].startswith(SIGN_IN), endpoint
    assert services.keys.audit(100) == before


def test_navigation_leads_only_where_one_may_go(visitor: Come) -> None:
    for role, sections in {
        "admin": ["Overview", "Search", "Episodes", "Dead rows", "Integrity", "Keys", "Audit"],
        "operator": ["Overview", "Episodes", "Dead rows", "Integrity"],
        "readonly": ["Overview", "Search", "Episodes"],
    }.items():
        person = visitor(role, "alice" if role == "readonly" else None)
        text = person.get("/console/").get_data(as_text=True)
        menu = text[text.index("<nav") : text.index("</nav>")]
        assert [
            name for name in ("Overview", "Search", "Episodes", "Dead rows", "Integrity", "Keys", "Audit") if f">{name}<" in menu
        ] == sections


@pytest.fixture
def episode(services: Services) -> str:
    receipt = services.episodes.store("alice", new_episode(f"{SECRET} of alice", session_id=SECRET, tags=(SECRET,)))
    return str(receipt.episode_id)


def test_operator_sees_an_episodes_life_and_no_content(operator: Visitor, episode: str, workshop: Workshop) -> None:
    workshop.drain()
    for path in (f"/console/episodes/{episode}", f"/console/episodes/{episode}?agent_id=alice"):
        text = operator.get(path).get_data(as_text=True)
        assert "searchable" in text
        assert "sees no content" in text
        assert SECRET not in text


def test_other_agents_memory_is_out_of_reach(visitor: Come, episode: str) -> None:
    bob = visitor("agent", "bob")
    for answer in (
        bob.get(f"/console/episodes/{episode}"),
        bob.get(f"/console/episodes/{episode}?agent_id=alice"),
        bob.get(f"/console/episodes/{episode}", X_Agent_Id="alice"),
        bob.post("/console/search", {"query": SECRET, "agent_id": "alice"}),
        bob.post("/console/search", {"query": SECRET}, X_Agent_Id="alice"),
        bob.post("/console/search", {"query": SECRET, "mode": "keyword"}),
    ):
        text = answer.get_data(as_text=True)
        assert f"{SECRET} of alice" not in text
        assert answer.status_code in {200, 403, 404}
    assert "Nothing found" in bob.post("/console/search", {"query": "of alice", "mode": "keyword"}).get_data(as_text=True)


def test_bound_keys_see_their_own_counts(visitor: Come, episode: str, services: Services) -> None:
    services.episodes.store_many("bob", [new_episode(f"b {n}") for n in range(3)])
    text = visitor("readonly", "alice").get("/console/").get_data(as_text=True)
    assert "Stored by alice" in text
    assert '<dt>Episodes</dt>\n  <dd><span class="value">1</span>' in text
    assert "Queue</h2>" not in text


def test_what_a_role_may_not_do_changes_nothing(alice: Visitor, operator: Visitor, sql: Sql) -> None:
    def state() -> list[tuple[Any, ...]]:
        return sql("SELECT key_id, revoked_at, expires_at FROM memory_system.api_keys ORDER BY 1")

    before = state()
    victim = str(before[0][0])
    for person in (alice, operator):
        for path in (f"/console/keys/{victim}/revoke", f"/console/keys/{victim}/rotate"):
            assert person.post(path).status_code == 403
        assert person.post("/console/keys", {"role": "admin", "name": "mine"}).status_code == 403
    assert alice.post("/console/dead/replay", {"all": "yes"}).status_code == 403
    assert state() == before


def test_page_that_somebody_forgot_to_close_is_closed(app: Application, admin: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.authentication.ROUTE_POLICIES", {k: v for k, v in ROUTE_POLICIES.items() if k != "console.keys.show_keys"})
    assert admin.get("/console/keys").status_code == 403
