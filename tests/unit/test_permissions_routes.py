"""Every route has exactly one policy, and every policy has a route."""

from pathlib import Path

from app.api.policies import ROUTE_POLICIES, Access
from app.config import Settings
from app.factory import create_app
from app.identity.permissions import GRANTS, Permission
from tests.api.doubles import Doubles


def test_routes_and_policies_match(tmp_path: Path) -> None:
    settings = Settings(secrets_dir=tmp_path)
    app = create_app(settings, Doubles().as_services(settings))
    assert {rule.endpoint for rule in app.url_map.iter_rules()} == set(ROUTE_POLICIES)


def test_open_routes_are_the_published_ones() -> None:
    assert {name for name, policy in ROUTE_POLICIES.items() if policy is Access.OPEN} == {
        "operations.get_liveness",
        "operations.get_readiness",
        "docs.openapi",
        "docs.page",
        "docs.asset",
        "console.static",
        "console.entrance.show_sign_in",
        "console.entrance.sign_in",
        "console.entrance.sign_out",
        "console.entrance.get_nothing",
    }
    assert [name for name, policy in ROUTE_POLICIES.items() if policy is Access.KEY_OR_LOOPBACK] == ["operations.get_metrics"]


def test_operator_and_readonly_cannot_reach_more() -> None:
    assert GRANTS["operator"].isdisjoint({Permission.READ_MEMORY, Permission.WRITE_MEMORY})
    assert Permission.WRITE_MEMORY not in GRANTS["readonly"]
    assert GRANTS["admin"] == frozenset(Permission)


def test_route_without_policy_is_closed(tmp_path: Path) -> None:
    settings = Settings(secrets_dir=tmp_path)
    app = create_app(settings, Doubles().as_services(settings))
    app.add_url_rule("/forgotten", "forgotten", lambda: "secret")
    answer = app.test_client().get("/forgotten", headers={"X-API-Key": "nxs_admin_key"})
    assert answer.status_code == 403
    assert "secret" not in answer.get_data(as_text=True)
