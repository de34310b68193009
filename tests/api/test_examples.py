"""Every example of the description runs: sent as it stands, with ids of things that are there in the path, it is answered with success."""

from collections.abc import Callable
from typing import Any

import pytest

from app.api import examples
from app.bootstrap import Services, build_sealing_service
from app.factory import create_app
from tests.api.conftest import Caller

AGENT = "lena-bot"
NAMES_NO_AGENT = ("/keys", "/queue", "/agents", "/audit", "/health", "/metrics", "/integrity/heads")
ORDER = ("get", "post", "put", "patch", "delete")
"""What is deleted is deleted last."""

Operation = tuple[str, str, dict[str, Any]]


def described(services: Services) -> list[Operation]:
    """Return (method, path, operation) of everything that is described, deletions last."""
    paths = create_app(services.settings, services).api_doc["paths"]
    found = [(method, path, operation) for path, methods in paths.items() for method, operation in methods.items()]
    return sorted(found, key=lambda one: (ORDER.index(one[0]), -len(one[1])))


@pytest.fixture
def ids(caller: Callable[..., Caller], services: Services, drain: Callable[[], int]) -> dict[str, str]:
    """What stands for each parameter in a path: a thing that is there."""
    lena = caller("agent", AGENT)
    episode = lena.post("/memory/action", {"content": "The kettle is on the stove.", "session_id": "s"}).get_json()
    checkpoint = lena.post("/consciousness/checkpoints", {"checkpoint_type": "manual", "state_data": {}}).get_json()
    lena.put("/memory/working/plan", {"active_content": {}})
    lena.put("/consciousness/blocks/persona", {"value": "Calm."})
    drain()
    build_sealing_service(services.settings).seal(everything=True)
    return examples.PATHS | {
        "episode_id": episode["episode_id"],
        "memory_id": lena.post("/memory/semantic", {"concept": "c", "definition": "d"}).get_json()["memory_id"],
        "checkpoint_id": checkpoint["checkpoint_id"],
        "key_id": caller("admin").post("/keys", {"role": "operator", "name": "spare"}).get_json()["key_id"],
    }


def examples_of(operation: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return (content type, body) of each example; one without a body for an operation that takes none."""
    if "requestBody" not in operation:
        return [("", None)]
    ((content_type, content),) = operation["requestBody"]["content"].items()
    return (
        [(content_type, content["example"])] if "example" in content else [(content_type, e["value"]) for e in content["examples"].values()]
    )


def test_every_example_runs(services: Services, caller: Callable[..., Caller], ids: dict[str, str]) -> None:
    admin = caller("admin")
    ran = []
    for method, path, operation in described(services):
        for content_type, body in examples_of(operation):
            if (method, path) == ("post", "/consciousness/blocks"):
                admin.delete("/consciousness/blocks/persona", X_Agent_Id=AGENT)
            headers = {"X-API-Key": admin.key} | ({} if path.startswith(NAMES_NO_AGENT) else {"X-Agent-Id": AGENT})
            sent = {"json": body} if content_type == "application/json" else {"data": body, "content_type": content_type}
            answer = admin.client.open(path.format(**ids), method=method.upper(), headers=headers, **({} if body is None else sent))
            # Nothing embeds here while the test runs, and /health says so.
            expected = {200, 503} if path in {"/health", "/health/ready"} else {200, 201}
            assert answer.status_code in expected, (method, path, body, answer.text)
            assert str(answer.status_code) in operation["responses"]
            if path == "/import":
                assert (answer.get_json()["failed"], answer.get_json()["is_complete"]) == (0, True)
            ran.append((method, path))
    assert len(ran) > len(set(ran)) >= 50


def test_no_example_is_left_over(services: Services) -> None:
    rules = create_app(services.settings, services).url_map.iter_rules()
    assert examples.BODIES.keys() <= {rule.endpoint for rule in rules}
