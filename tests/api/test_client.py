"""The client, synchronous and asynchronous, against the real application; its types against the description."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import pytest

from app.bootstrap import Services
from app.client import types
from app.client.asynchronous import AsyncNexusClient
from app.client.sync import NexusClient
from app.client.transport import ATTEMPTS, NexusApiError
from app.config import Settings
from app.factory import create_app
from tests.api.doubles import Doubles
from tests.factories.asynchronous import CLIENT, asynchronous


class Bridge(httpx.AsyncBaseTransport):
    """Carries an asynchronous client's requests to a WSGI application."""

    def __init__(self, application: Any) -> None:
        self._transport = httpx.WSGITransport(application)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Hand the request over, its body read whole."""
        plain = httpx.Request(request.method, request.url, headers=request.headers, content=await request.aread())
        answer = self._transport.handle_request(plain)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.read())


@pytest.fixture
def client(services: Services) -> Iterator[NexusClient]:
    key = services.keys.create(role="agent", name="test", agent_id="ada", expires_days=None).secret
    with NexusClient("http://nexus", key, transport=httpx.WSGITransport(create_app(services.settings, services))) as made:
        yield made


def test_story_of_an_agent(client: NexusClient, drain: Callable[[], int]) -> None:
    receipt = client.store("the kettle is on", session_id="s", tags=["kitchen"], metadata={"n": 1}, project="cerebro")
    again = client.store("twice", idempotency_key="k")
    assert client.store("twice", idempotency_key="k")["episode_id"] == again["episode_id"]
    many = client.store_many([{"content": f"n{number}", "session_id": "s"} for number in range(3)])
    drain()
    assert client.search("kettle", mode="keyword", filters={"tags_any": ["kitchen"]})["results"][0]["id"] == receipt["episode_id"]
    assert [episode["content"] for episode in client.recent(limit=2)] == ["n2", "n1"]
    assert len(list(client.list_all())) == 5
    assert [episode["content"] for episode in client.list_all(metadata={"n": 1})] == ["the kettle is on"]
    assert client.context(many[1]["episode_id"], before=1)["before"][0]["content"] == "n0"
    changed = client.change(receipt["episode_id"], {"content": "the kettle is off", "session_id": None}, expected_version=1)
    assert (changed["version"], client.get(receipt["episode_id"])["session_id"]) == (2, None)
    assert client.delete(again["episode_id"])["version"] == 1
    assert client.verify([receipt, again, *many])["summary"] == {"superseded": 1, "deleted": 1, "searchable": 3}
    client.put_working("plan", {"goal": "tea"}, ttl_seconds=60, priority="high")
    assert client.get_working("plan", refresh=True)["active_content"] == {"goal": "tea"}
    assert len(client.list_working(priority="high")["items"]) == 1
    client.delete_working("plan")
    memory = client.store_semantic("tea", "a drink", confidence_score=0.9)
    assert client.change_semantic(memory["memory_id"], {"definition": "a hot drink"})["version"] == 2
    assert client.get_semantic(memory["memory_id"])["definition"] == "a hot drink"
    assert [item["concept"] for item in client.list_semantic(concept="tea")["items"]] == ["tea"]
    client.delete_semantic(memory["memory_id"])
    assert client.put_block("persona", "calm", expected_version=0)["version"] == 1
    assert client.get_block("persona")["value"] == "calm"
    checkpoint = client.checkpoint({"step": 1})
    assert client.restore(checkpoint["checkpoint_id"])["continuity_score"] == 1.0
    assert client.get_checkpoint(checkpoint["checkpoint_id"])["blocks"] == {"persona": "calm"}
    assert [item["checkpoint_id"] for item in client.list_checkpoints()["items"]] == [checkpoint["checkpoint_id"]]
    assert client.create_block("mood", "bright")["read_only"] is False
    first = client.list_blocks(limit=1)
    assert [block["label"] for block in (*first["items"], *client.list_blocks(cursor=first["next_cursor"])["items"])] == ["mood", "persona"]
    client.delete_block("mood")
    assert len(client.list_blocks()["items"]) == 1
    assert [(project["name"], project["episode_count"]) for project in client.projects()] == [("cerebro", 1)]
    exported = list(client.export())
    assert exported[-1]["counts"]["episode"] == 4
    assert client.import_lines(exported)["unchanged"]["episode"] == 4
    assert client.heads() == []
    with pytest.raises(NexusApiError) as unsealed:
        client.proof(receipt["episode_id"])
    assert (unsealed.value.status, unsealed.value.code) == (409, "conflict")
    assert client.stats()["episodes"] == 4
    assert client.forget_agent("ada")["deleted"]["episodes"] == 4


def test_asynchronous_client_tells_the_same_story(services: Services) -> None:
    key = services.keys.create(role="agent", name="test", agent_id="ada", expires_days=None).secret

    async def story() -> list[str]:
        async with AsyncNexusClient("http://nexus", key, transport=Bridge(create_app(services.settings, services))) as client:
            receipts = await asyncio.gather(*(client.store(f"n{number}") for number in range(5)))
            await client.put_working("plan", {"goal": "tea"})
            found = [episode["content"] async for episode in client.list_all(order="oldest")]
            assert (await client.verify(list(receipts)))["summary"] == {"pending": 5}
            assert [line["type"] async for line in client.export()][-1] == "end"
            with pytest.raises(NexusApiError, match="not_found"):
                await client.get_working("none")
            return found

    assert sorted(asyncio.run(story())) == [f"n{number}" for number in range(5)]


def test_asynchronous_client_follows_from_the_synchronous_one() -> None:
    assert (CLIENT / "asynchronous.py").read_text(encoding="utf-8") == asynchronous((CLIENT / "sync.py").read_text(encoding="utf-8"))
    names = {name for name, _ in inspect.getmembers(NexusClient, inspect.isfunction) if not name.startswith("_")}
    assert names == {name for name, _ in inspect.getmembers(AsyncNexusClient, inspect.isroutine) if not name.startswith("_")}


ANSWERS = {
    "ReceiptAnswer": types.Receipt,
    "EpisodeAnswer": types.Episode,
    "ListAnswer": types.EpisodePage,
    "TombstoneAnswer": types.Tombstone,
    "HitAnswer": types.Hit,
    "SearchResultsAnswer": types.SearchResults,
    "ContextListAnswer": types.WorkingPage,
    "SemanticAnswer": types.SemanticMemory,
    "SemanticListAnswer": types.SemanticPage,
    "BlockAnswer": types.Block,
    "BlockListAnswer": types.BlockPage,
    "CheckpointAnswer": types.Checkpoint,
    "CheckpointListAnswer": types.CheckpointPage,
    "ProjectAnswer": types.Project,
    "RestoreAnswer": types.Restored,
    "BlockChanges": types.BlockChanges,
    "VerdictAnswer": types.Verdict,
    "VerifyAnswer": types.Verdicts,
    "ForgottenAnswer": types.Forgotten,
    "ImportAnswer": types.ImportReport,
    "EmbeddingDetail": types.EmbeddingDetail,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_types_are_those_of_the_description(name: str, tmp_path: Path) -> None:
    settings = Settings(secrets_dir=tmp_path)
    schemas = create_app(settings, Doubles().as_services(settings)).api_doc["components"]["schemas"]
    assert get_type_hints(ANSWERS[name]).keys() == schemas[name]["properties"].keys()


def refusing(*answers: httpx.Response | Exception) -> tuple[NexusClient, list[httpx.Request]]:
    """Return a client that gets these answers, and the requests that it makes."""
    left, requests = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        following = left.pop(0)
        if isinstance(following, Exception):
            raise following
        return following

    return NexusClient("http://nexus", "key", "ada", transport=httpx.MockTransport(answer)), requests


BUSY = httpx.Response(503, json={"code": "database_unavailable"}, headers={"Retry-After": "0"})
DONE = httpx.Response(200, json={"ok": True})


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("app.client.sync.time.sleep", waits.append)
    return waits


def test_busy_service_is_asked_again_with_the_same_key(no_waits: list[float]) -> None:
    limited = httpx.Response(429, json={"code": "rate_limited"}, headers={"Retry-After": "7"})
    client, requests = refusing(BUSY, httpx.ReadTimeout("slow"), limited, DONE)
    client.store("x")
    assert len({request.content for request in requests}) == 1, "each attempt carried another idempotency key"
    assert no_waits == [0.0, 1.0, 7.0]
    assert requests[0].headers["X-Agent-Id"] == "ada"


def test_what_might_be_done_twice_is_not_sent_again(no_waits: list[float]) -> None:
    attempts: list[Callable[[NexusClient], object]] = [
        lambda client: client.store_semantic("a", "b"),
        lambda client: client.delete("x"),
        lambda client: client.change("x", {"content": "y"}, expected_version=1),
    ]
    for attempt in attempts:
        client, requests = refusing(httpx.ReadTimeout("slow"), DONE)
        with pytest.raises(NexusApiError, match="unreachable"):
            attempt(client)
        assert len(requests) == 1


def test_service_that_stays_away_is_given_up(no_waits: list[float]) -> None:
    client, requests = refusing(*[httpx.ConnectError("refused")] * ATTEMPTS)
    with pytest.raises(NexusApiError) as lost:
        client.get("x")
    assert (lost.value.status, lost.value.code, len(requests)) == (None, "unreachable", ATTEMPTS)
    client, _ = refusing(*[BUSY] * ATTEMPTS)
    with pytest.raises(NexusApiError, match="database_unavailable"):
        client.get("x")


OTHERS_ANSWERS = {
    "a page": httpx.Response(200, text="<html>"),
    "a list": httpx.Response(200, json=["x"]),
    "a number": httpx.Response(200, json=1),
    "no text": httpx.Response(200, content=b"\xff", headers={"Content-Type": "application/json"}),
    "another object": httpx.Response(200, json={"status": "fine"}),
    "a list of errors": httpx.Response(404, json=["x"]),
}
CALLS: dict[str, Callable[[NexusClient], object]] = {
    "export": lambda client: list(client.export()),
    "heads": lambda client: client.heads(),
    "list_all": lambda client: list(client.list_all()),
    "projects": lambda client: client.projects(),
    "recent": lambda client: client.recent(),
    "store_many": lambda client: client.store_many([{"content": "x"}]),
}


# A line of an export is whatever object it is.
@pytest.mark.parametrize(
    ("what", "call"), [(what, call) for what in OTHERS_ANSWERS for call in CALLS if (what, call) != ("another object", "export")]
)
def test_answer_of_something_else_is_said(what: str, call: str) -> None:
    client, _ = refusing(OTHERS_ANSWERS[what])
    with pytest.raises(NexusApiError, match="not NEXUS Cerebro") as refused:
        CALLS[call](client)
    assert (refused.value.status, refused.value.code) == (OTHERS_ANSWERS[what].status_code, "not_this_service")


class CutOff(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that ends in the middle."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield a line and break off."""
        yield b'{"type": "header"}\n'
        raise httpx.RemoteProtocolError("peer closed connection")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield a line and break off."""
        for part in self:
            yield part


def test_export_that_gets_no_answer_or_half_of_one_is_unreachable() -> None:
    client, _ = refusing(httpx.ConnectError("refused"), httpx.Response(200, stream=CutOff()))
    for lines in (0, 1):
        export = client.export()
        assert [next(export)["type"] for _ in range(lines)] == ["header"] * lines
        with pytest.raises(NexusApiError) as lost:
            next(export)
        assert (lost.value.status, lost.value.code) == (None, "unreachable")

    async def export_to_the_end() -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=CutOff()))
        async with AsyncNexusClient("http://nexus", "key", transport=transport) as asynchronous_client:
            async for _ in asynchronous_client.export():
                pass

    with pytest.raises(NexusApiError, match="unreachable"):
        asyncio.run(export_to_the_end())


def test_argument_that_fits_in_no_url_is_a_value_error() -> None:
    client, _ = refusing()
    with pytest.raises(ValueError, match="cannot be sent"):
        client.get("x" * 100_000)


def test_ids_cannot_leave_their_place_in_the_path() -> None:
    client, requests = refusing(DONE, DONE, DONE)
    client.get("../../agents/ada?x=1#y")
    assert requests[0].url.raw_path == b"/memory/episodic/..%2F..%2Fagents%2Fada%3Fx%3D1%23y"
    for step in (".", ".."):
        client.get(step)
        assert requests[-1].url.raw_path == b"/memory/episodic/" + step.replace(".", "%2E").encode()
