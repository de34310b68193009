"""The memory as tools, over both transports, with the SDK's own client and the real API behind it as processes' sockets."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from werkzeug.serving import make_server

from app.bootstrap import Services
from app.config import Settings
from app.errors import ConfigurationError
from app.factory import create_app
from app.mcp.server import serve_stdio

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {"store_memory", "search_memory", "recent_memories", "get_working_memory", "set_working_memory", "forget_memory"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass(frozen=True)
class Running:
    """An API, the tools in front of it, and keys of two agents."""

    services: Services
    url: str
    api_url: str
    ada: str
    bob: str


@pytest.fixture
def api(services: Services) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, create_app(services.settings, services), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()


@pytest.fixture
def running(services: Services, api: str, tmp_path: Path) -> Iterator[Running]:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MCP_PORT": str(port),
        "MCP_API_URL": api,
        "SECRETS_DIR": str(tmp_path),
    }
    log = (tmp_path / "mcp.log").open("wb")
    process = subprocess.Popen([sys.executable, "-m", "app", "mcp", "serve"], cwd=ROOT, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/mcp"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(url)
                break
            except httpx.HTTPError:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "mcp.log").read_text()
                time.sleep(0.1)
        keys = [services.keys.create(role="agent", name=name, agent_id=name, expires_days=None).secret for name in ("ada", "bob")]
        yield Running(services, url, api, *keys)
    finally:
        process.terminate()
        process.wait(10)
        log.close()


@asynccontextmanager
async def over_http(running: Running, key: str, headers: dict[str, str] | None = None) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"} | (headers or {})) as http,
        Client(streamable_http_client(running.url, http_client=http)) as client,
    ):
        yield client


def answer(result: Any) -> dict[str, Any]:
    assert not result.is_error, result.content
    found: dict[str, Any] = result.structured_content
    return found


def refusal(result: Any) -> str:
    assert result.is_error
    return str(result.content[0].text)


async def tell_a_story(client: Client) -> None:
    assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
    receipt = answer(await client.call_tool("store_memory", {"content": "the zeppelin landed", "tags": ["air"], "session_id": "s"}))
    assert len(receipt["nonce"]) == 32
    found = answer(await client.call_tool("search_memory", {"query": "zeppelin", "mode": "keyword", "tags_any": ["air"]}))
    assert [hit["episode_id"] for hit in found["results"]] == [receipt["episode_id"]]
    recent = answer(await client.call_tool("recent_memories", {"session_id": "s"}))
    assert [episode["content"] for episode in recent["items"]] == ["the zeppelin landed"]
    answer(await client.call_tool("set_working_memory", {"context_id": "plan", "active_content": {"goal": "fly"}, "ttl_seconds": 60}))
    assert answer(await client.call_tool("get_working_memory", {"context_id": "plan"}))["active_content"] == {"goal": "fly"}
    tombstone = answer(await client.call_tool("forget_memory", {"episode_id": receipt["episode_id"]}))
    assert tombstone["episode_id"] == receipt["episode_id"]
    assert "gone" in refusal(await client.call_tool("forget_memory", {"episode_id": receipt["episode_id"]}))
    assert "not_found" in refusal(await client.call_tool("get_working_memory", {"context_id": "none"}))


def test_story_over_streamable_http(running: Running) -> None:
    async def story() -> None:
        async with over_http(running, running.ada) as client:
            await tell_a_story(client)

    asyncio.run(story())


def test_story_over_stdio(services: Services, api: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(services.keys.create(role="agent", name="ada", agent_id="ada", expires_days=None).secret)
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "app", "mcp", "stdio"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "MCP_API_URL": api, "NEXUS_API_KEY_FILE": str(file), "SECRETS_DIR": str(tmp_path)},
    )

    async def story() -> None:
        async with Client(stdio_client(parameters)) as client:
            await tell_a_story(client)

    asyncio.run(story())


def test_tools_are_held_to_the_callers_key(running: Running) -> None:
    async def story() -> None:
        async with over_http(running, running.ada) as ada, over_http(running, running.bob) as bob:
            receipt = answer(await ada.call_tool("store_memory", {"content": "the safe is behind the painting"}))
            answer(await ada.call_tool("set_working_memory", {"context_id": "plan", "active_content": {"of": "ada"}}))
            assert answer(await bob.call_tool("search_memory", {"query": "safe painting", "mode": "keyword"}))["results"] == []
            assert answer(await bob.call_tool("recent_memories", {}))["items"] == []
            assert "not_found" in refusal(await bob.call_tool("get_working_memory", {"context_id": "plan"}))
            assert "not_found" in refusal(await bob.call_tool("forget_memory", {"episode_id": receipt["episode_id"]}))
        async with over_http(running, running.bob, {"X-Agent-Id": "ada"}) as forged:
            assert "permission_denied" in refusal(await forged.call_tool("recent_memories", {}))
        async with over_http(running, "nxs_agent_" + "a" * 40) as unknown:
            assert "unauthenticated" in refusal(await unknown.call_tool("recent_memories", {}))
        readonly = running.services.keys.create(role="readonly", name="r", agent_id="ada", expires_days=None).secret
        async with over_http(running, readonly) as reader:
            assert "permission_denied" in refusal(await reader.call_tool("store_memory", {"content": "x"}))
            assert len(answer(await reader.call_tool("recent_memories", {}))["items"]) == 1

    asyncio.run(story())


def test_wrong_arguments_are_named_and_not_repeated(running: Running) -> None:
    async def story() -> None:
        async with over_http(running, running.ada) as client:
            assert "content" in refusal(await client.call_tool("store_memory", {"content": "   "}))
            assert "limit" in refusal(await client.call_tool("recent_memories", {"limit": 0}))
            assert "bad_format" not in refusal(await client.call_tool("get_working_memory", {"context_id": "a:b"}))

    asyncio.run(story())


@pytest.mark.parametrize("name", ["", "a/b", "/"])
def test_name_that_is_no_part_of_a_path_is_named(name: str, running: Running) -> None:
    async def story() -> None:
        async with over_http(running, running.ada) as client:
            context = {"context_id": name}
            assert refusal(await client.call_tool("get_working_memory", context)).startswith("invalid_request: context_id: ")
            replacing = {"context_id": name, "active_content": {}}
            assert refusal(await client.call_tool("set_working_memory", replacing)).startswith("invalid_request: context_id: ")
            assert refusal(await client.call_tool("forget_memory", {"episode_id": name})).startswith("invalid_request: episode_id: ")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("header", "prefix", "reason"),
    [("Authorization", b"Bearer ", "unauthenticated: "), ("X-API-Key", b"", "unauthenticated: "), ("X-Agent-Id", b"", "X-Agent-Id: ")],
)
def test_header_that_is_no_ascii_is_a_bad_key_or_agent(header: str, prefix: bytes, reason: str, running: Running, tmp_path: Path) -> None:
    key = {"Authorization": f"Bearer {running.ada}".encode()} if header == "X-Agent-Id" else {}
    call = HELLO | {"method": "tools/call", "params": {"name": "recent_memories", "arguments": {}}}
    accepted = {"Accept": b"application/json, text/event-stream", "Content-Type": b"application/json"}
    headers = {name.encode(): value for name, value in (accepted | key | {header: prefix + "\u00e9".encode("latin-1")}).items()}
    told = httpx.post(running.url, content=json.dumps(call), headers=headers).json()["result"]
    assert told["isError"] is True
    assert reason in told["content"][0]["text"]
    assert '"level":"error"' not in (tmp_path / "mcp.log").read_text()


def test_unknown_arguments_and_tools_are_refused_and_no_value_is_repeated(running: Running) -> None:
    async def story() -> None:
        async with over_http(running, running.ada) as client:
            assert all(tool.input_schema["additionalProperties"] is False for tool in (await client.list_tools()).tools)
            refused = refusal(await client.call_tool("store_memory", {"content": "kept", "agent_id": "bob", "importance": 1}))
            assert refused == ("invalid_request: agent_id: this tool has no such argument; importance: this tool has no such argument")
            assert answer(await client.call_tool("recent_memories", {}))["items"] == []
            for arguments in ({"query": "q", "limit": "xyzzy"}, {"query": "q", "mode": "xyzzy"}, {"query": ["xyzzy"]}):
                refused = refusal(await client.call_tool("search_memory", arguments))
                assert refused.startswith("invalid_request: ") and "xyzzy" not in refused
            assert "xyzzy" not in refusal(await client.call_tool("xyzzy", {}))

    asyncio.run(story())


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "evil.example:8003"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Basic YTpi"}, 401),
        ({"X-API-Key": "another"}, 401),
    ],
)
def test_host_origin_and_key_of_a_request_are_looked_at(headers: dict[str, str], status: int, running: Running) -> None:
    given = {"Authorization": f"Bearer {running.ada}", "Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    response = httpx.post(running.url, content=json.dumps(HELLO), headers=given | headers)
    assert response.status_code == status, response.text
    if status == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert running.ada not in response.text
    assert (response.headers["X-Content-Type-Options"], response.headers["Cache-Control"]) == ("nosniff", "no-store")


def test_log_of_the_process_holds_no_content_and_no_key(running: Running, tmp_path: Path) -> None:
    async def story() -> None:
        async with over_http(running, running.ada) as client:
            await client.call_tool("store_memory", {"content": "xyzzy secret"})
            await client.call_tool("search_memory", {"query": "xyzzy secret", "limit": 500})
            await client.call_tool("recent_memories", {"session_id": "xyzzy-session"})
            await client.call_tool("get_working_memory", {"context_id": "xyzzy-context"})

    asyncio.run(story())
    log = (tmp_path / "mcp.log").read_text()
    assert "xyzzy" not in log
    assert running.ada not in log
    assert all(json.loads(line)["level"] for line in log.splitlines())


def test_stdio_without_a_key_says_what_to_do(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "app", "mcp", "stdio"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "SECRETS_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert "NEXUS_API_KEY_FILE" in result.stderr


@pytest.mark.parametrize(
    ("variables", "named"),
    [({"NEXUS_API_KEY": "\u00e9"}, "NEXUS_API_KEY"), ({"NEXUS_API_KEY": "k", "NEXUS_AGENT_ID": "\u00e9"}, "NEXUS_AGENT_ID")],
)
def test_stdio_with_what_can_be_no_key_or_agent_says_so(variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=named):
        serve_stdio(Settings())


def test_settings_find_the_api_behind_any_host() -> None:
    from app.mcp.server import api_url

    assert api_url(Settings(host="0.0.0.0", port=8002)) == "http://127.0.0.1:8002"
    assert api_url(Settings(host="::1", port=8002)) == "http://[::1]:8002"
    assert api_url(Settings(mcp_api_url="https://nexus.example")) == "https://nexus.example"
