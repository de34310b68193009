"""The isolation matrix over HTTP: every route of an agent's memory, every key that is not its own, every place for a forged name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from werkzeug.test import TestResponse

from app.api.policies import ROUTE_POLICIES
from app.identity.permissions import Permission
from tests.api.conftest import Caller
from tests.factories.statements import Sql

SECRET = "xyzzy-plugh"
NDJSON = "application/x-ndjson"

# Every route that reaches an agent's memory, as alice would call it. {name} stands for the id of something of hers.
REQUESTS: dict[str, tuple[str, str, Any]] = {
    "episodes.store_episode": ("POST", "/memory/action", {"content": "forged"}),
    "episodes.store_episodes": ("POST", "/memory/actions", {"items": [{"content": "forged"}]}),
    "episodes.list_recent": ("GET", "/memory/episodic/recent", None),
    "episodes.get_episode": ("GET", "/memory/episodic/{episode}", None),
    "episodes.list_episodes": ("GET", "/memory/episodic", None),
    "episodes.get_context": ("GET", "/memory/episodic/{episode}/context", None),
    "episodes.change_episode": ("PATCH", "/memory/episodic/{episode}", {"content": "forged"}),
    "episodes.delete_episode": ("DELETE", "/memory/episodic/{episode}", None),
    "episodes.list_projects": ("GET", "/projects", None),
    "working.create_context": ("POST", "/memory/working", {"active_content": {}, "context_id": "plan"}),
    "working.put_context": ("PUT", "/memory/working/plan", {"active_content": {"forged": True}}),
    "working.get_context": ("GET", "/memory/working/plan", None),
    "working.delete_context": ("DELETE", "/memory/working/plan", None),
    "working.list_contexts": ("GET", "/memory/working", None),
    "semantic.store_semantic": ("POST", "/memory/semantic", {"concept": "c", "definition": "d", "source_episodes": ["{episode}"]}),
    "semantic.get_semantic": ("GET", "/memory/semantic/{semantic}", None),
    "semantic.change_semantic": ("PATCH", "/memory/semantic/{semantic}", {"definition": "forged"}),
    "semantic.delete_semantic": ("DELETE", "/memory/semantic/{semantic}", None),
    "semantic.list_semantic": ("GET", "/memory/semantic", None),
    "consciousness.create_block": ("POST", "/consciousness/blocks", {"label": "persona", "value": "forged"}),
    "consciousness.put_block": ("PUT", "/consciousness/blocks/persona", {"value": "forged"}),
    "consciousness.get_block": ("GET", "/consciousness/blocks/persona", None),
    "consciousness.delete_block": ("DELETE", "/consciousness/blocks/persona", None),
    "consciousness.list_blocks": ("GET", "/consciousness/blocks", None),
    "consciousness.create_checkpoint": ("POST", "/consciousness/checkpoints", {"state_data": {}}),
    "consciousness.get_checkpoint": ("GET", "/consciousness/checkpoints/{checkpoint}", None),
    "consciousness.list_checkpoints": ("GET", "/consciousness/checkpoints", None),
    "consciousness.restore_checkpoint": ("POST", "/consciousness/checkpoints/{checkpoint}/restore", {"write_blocks": True}),
    "agents.forget_agent": ("DELETE", "/agents/alice", None),
    "transfer.export_memory": ("GET", "/export", None),
    "transfer.import_memory": ("POST", "/import", None),
    "search.search_memory": (
        "POST",
        "/memory/search",
        {"query": SECRET, "memory_types": ["episodic", "semantic", "working"], "mode": "keyword"},
    ),
    "integrity.verify": ("POST", "/integrity/verify", {"receipts": ["{receipt}"]}),
    "integrity.get_proof": ("GET", "/integrity/proof/{episode}", None),
    "operations.get_stats": ("GET", "/stats", None),
}

_AGENTS = {Permission.READ_MEMORY, Permission.WRITE_MEMORY, Permission.FORGET_AGENT, Permission.VERIFY_RECEIPTS, Permission.READ_STATS}
# Heads are of the whole ledger: hashes that tell nothing of anybody.
_OF_NO_AGENT = {"integrity.get_heads"}

PLACES = ("nowhere", "header", "query or body", "header and body")


def test_every_route_of_an_agents_memory_is_in_the_matrix() -> None:
    # The console's pages have a matrix of their own (tests/console/test_access.py): they take a session, no key.
    routes = {name for name, policy in ROUTE_POLICIES.items() if policy in _AGENTS and not name.startswith("console.")}
    assert routes - _OF_NO_AGENT == REQUESTS.keys()


@dataclass
class World:
    """Alice's memory, the ids in it, and what is in it, to be compared afterwards."""

    alice: Caller
    ids: dict[str, Any]
    sql: Sql

    def state(self) -> list[list[tuple[Any, ...]]]:
        tables = (
            "nexus_memory.zep_episodic_memory",
            "nexus_memory.semantic_memories",
            "nexus_memory.working_memory_contexts",
            "nexus_memory.projects",
            "consciousness.memory_blocks",
            "consciousness.consciousness_checkpoints",
            "memory_system.ledger",
            "memory_system.embeddings_queue",
        )
        return [self.sql(f"SELECT t::text FROM {table} t WHERE agent_id = 'alice' ORDER BY 1") for table in tables]

    def fill_in(self, value: Any) -> Any:
        match value:
            case "{receipt}":
                return self.ids["receipt"]
            case str():
                return value.format(**self.ids) if "{" in value else value
            case list():
                return [self.fill_in(item) for item in value]
            case dict():
                return {name: self.fill_in(item) for name, item in value.items()}
        return value


@pytest.fixture
def world(alice: Caller, sql: Sql) -> World:
    receipt = alice.post(
        "/memory/action",
        {"content": SECRET, "session_id": "s", "project": SECRET, "tags": [SECRET], "idempotency_key": "k", "metadata": {"m": SECRET}},
    ).get_json()
    for _ in range(2):
        alice.post("/memory/action", {"content": f"{SECRET} again"})
    semantic = alice.post("/memory/semantic", {"concept": SECRET, "definition": SECRET}).get_json()["memory_id"]
    alice.put("/memory/working/plan", {"active_content": {"goal": SECRET}})
    alice.put("/consciousness/blocks/persona", {"value": SECRET})
    checkpoint = alice.post("/consciousness/checkpoints", {"state_data": {"s": SECRET}}).get_json()["checkpoint_id"]
    cursor = alice.get("/memory/episodic?limit=1").get_json()["next_cursor"]
    ids = {"episode": receipt["episode_id"], "semantic": semantic, "checkpoint": checkpoint, "cursor": cursor, "receipt": receipt}
    return World(alice, ids, sql)


def call(caller: Caller, world: World, name: str, place: str) -> TestResponse:
    method, path, body = (world.fill_in(part) for part in REQUESTS[name])
    headers = {"X-API-Key": caller.key}
    if "header" in place:
        headers["X-Agent-Id"] = "alice"
    if "body" in place:
        if body is None:
            path += "?" + urlencode({"agent_id": "alice"}) if name != "agents.forget_agent" else ""
        else:
            body = {**body, "agent_id": "alice"}
    if name == "transfer.import_memory":
        lines = [{"type": "header", "format": "nexus-cerebro-export", "version": 1, "agent_id": "alice"}]
        return caller.client.open(path, method=method, data=orjson.dumps(lines[0]), headers=headers | {"Content-Type": NDJSON})
    return caller.client.open(path, method=method, json=body, headers=headers)


def tells_nothing(answer: TestResponse, world: World) -> bool:
    text = answer.get_data(as_text=True)
    return SECRET not in text and world.ids["receipt"]["nonce"] not in text


def check_matrix(world: World, attackers: dict[str, Caller]) -> int:
    """Raise AssertionError at the first hole; return how many cells were tried."""
    before = world.state()
    cells = 0
    for role, attacker in attackers.items():
        for name in REQUESTS:
            for place in PLACES:
                answer = call(attacker, world, name, place)
                where = f"{role} at {name}, alice named {place}: {answer.status_code} {answer.get_data(as_text=True)[:300]}"
                assert answer.status_code < 500, where
                # The receipt comes back as the verdict of what the caller sent itself.
                assert tells_nothing(answer, world) or name == "integrity.verify", where
                if place != "nowhere" and role != "operator":
                    assert answer.status_code == 403 or (name == "agents.forget_agent" and answer.status_code == 422), where
                if role == "operator" and name not in (
                    "integrity.verify",
                    "integrity.get_proof",
                    "operations.get_stats",
                ):
                    assert answer.status_code in (401, 403), where
                cells += 1
    assert world.state() == before, "alice's memory is not as it was"
    return cells


@pytest.fixture
def attackers(caller: Callable[..., Caller]) -> dict[str, Caller]:
    return {
        "agent": caller("agent", "bob"),
        "readonly": caller("readonly", "bob"),
        "operator": caller("operator"),
        "agent of a name alike": caller("agent", "alice."),
    }


def test_nobody_reaches_anothers_memory_from_any_place(world: World, attackers: dict[str, Caller]) -> None:
    cells = check_matrix(world, attackers)
    assert cells == 4 * len(REQUESTS) * len(PLACES) >= 500


def test_key_that_is_revoked_or_wrong_reaches_nothing(world: World, caller: Callable[..., Caller]) -> None:
    before = world.state()
    for key in ("", "nxs_agent_" + "a" * 40):
        for name in REQUESTS:
            answer = call(Caller(world.alice.client, key), world, name, "nowhere")
            assert (answer.status_code, tells_nothing(answer, world)) == (401, True), name
    assert world.state() == before


def test_verdict_on_a_stolen_receipt_is_missing(world: World, caller: Callable[..., Caller]) -> None:
    bob = caller("agent", "bob")
    receipt = {name: value for name, value in world.ids["receipt"].items() if name != "agent_id"}
    answer = bob.post("/integrity/verify", {"receipts": [receipt]})
    assert answer.get_json()["summary"] == {"missing": 1}
    assert bob.post("/integrity/verify", {"receipts": [world.ids["receipt"]]}).status_code in (403, 422)
    assert bob.get(f"/integrity/proof/{world.ids['episode']}").status_code == 404


def test_stolen_cursor_filter_and_idempotency_key_open_nothing(world: World, caller: Callable[..., Caller]) -> None:
    bob = caller("agent", "bob")
    assert bob.get(f"/memory/episodic?cursor={world.ids['cursor']}").get_json()["items"] == []
    for filters in ({"project": SECRET}, {"tags_all": [SECRET]}, {"session_id": "s"}, {"metadata": {"m": SECRET}}):
        assert bob.post("/memory/search", {"query": SECRET, "mode": "keyword", "filters": filters}).get_json()["results"] == []
        query = urlencode(
            {name: orjson.dumps(value).decode() if name == "metadata" else value for name, value in filters.items()}, doseq=True
        )
        assert bob.get(f"/memory/episodic?{query}").get_json()["items"] == []
    replay = {"content": SECRET, "session_id": "s", "project": SECRET, "tags": [SECRET], "idempotency_key": "k", "metadata": {"m": SECRET}}
    own = bob.post("/memory/action", replay)
    assert (own.status_code, own.get_json()["agent_id"]) == (201, "bob")
    assert own.get_json()["episode_id"] != world.ids["episode"]


def test_mutant_without_row_level_security_is_found(world: World, attackers: dict[str, Caller], sql: Sql) -> None:
    # The queries name the agent too: without that second wall, only the policies are left to hold.
    sql("ALTER TABLE nexus_memory.semantic_memories DISABLE ROW LEVEL SECURITY")
    from app.semantic import repository

    bare = repository._GET.text.replace("s.agent_id = :agent_id AND", "")
    bare = bare.replace("WHERE s.agent_id = :agent_id", "WHERE coalesce(:agent_id, '') <> ''")
    monkey = pytest.MonkeyPatch()
    monkey.setattr(repository, "_GET", type(repository._GET)(bare))
    try:
        with pytest.raises(AssertionError, match="semantic"):
            check_matrix(world, attackers)
        sql("ALTER TABLE nexus_memory.semantic_memories ENABLE ROW LEVEL SECURITY")
        check_matrix(world, attackers)
    finally:
        monkey.undo()
