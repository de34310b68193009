"""What a running stack tells of itself: one trace from a request to its vector, log lines that can be joined, and no content or secret."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg2.errors
import pytest
from sqlalchemy import make_url

from app.config import ALL_SECRETS
from tests.acceptance.sandbox import Sandbox
from tests.factories.otlp import ReceivedSpan, tree

SECONDS = 30.0


def wait_for_spans(sandbox: Sandbox, are_there: Callable[[list[ReceivedSpan]], bool]) -> list[ReceivedSpan]:
    """Return what the collector has once it is enough; processes send every five seconds."""
    deadline = time.monotonic() + SECONDS
    while not are_there(spans := sandbox.collector.spans()):
        assert time.monotonic() < deadline, spans
        time.sleep(0.2)
    return spans


def log_lines(sandbox: Sandbox, program: str) -> Iterator[dict[str, Any]]:
    for path in sorted((sandbox.settings.data_dir / "logs").glob(f"{program}.log*")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("{"):
                yield json.loads(line)


def test_write_is_one_trace_from_the_caller_to_its_vector_and_the_logs_name_it(sandbox: Sandbox) -> None:
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace_id}-{caller}-01", "X-Request-ID": "one-write"}
    with sandbox.client() as client:
        written = client.post("/memory/action", json={"content": "The heron is back."}, headers=headers).raise_for_status().json()
    sandbox.wait_until_embedded()

    def whole(spans: list[ReceivedSpan]) -> bool:
        found = {span.name for span in spans if span.trace_id == trace_id}
        batches = {span.identity for span in spans if span.name == "embed batch"}
        return found == {"POST /memory/action", "embed episode"} and all(
            span.links <= batches for span in spans if span.trace_id == trace_id
        )

    spans = wait_for_spans(sandbox, whole)
    print(tree(spans, trace_id))
    request, attempt = sorted((span for span in spans if span.trace_id == trace_id), key=lambda span: span.started_ns)
    assert (request.parent_id, attempt.parent_id) == (caller, request.span_id)
    assert (request.service, attempt.service) == ("nexus-api", "nexus-worker")
    assert attempt.attributes == {
        "nexus.attempt": 1,
        "nexus.outcome": "done",
        "nexus.target_id": written["episode_id"],
        "nexus.target_kind": "episodic",
    }
    (batch,) = attempt.links
    assert batch[0] != trace_id
    # By request_id one finds the line of the API; by its trace_id that of the worker; by that one's task_id that of the dispatcher.
    (of_api,) = [line for line in log_lines(sandbox, "api") if line.get("request_id") == "one-write"]
    assert (of_api["trace_id"], of_api["process"], of_api["status"]) == (trace_id, "api", 201)
    (of_worker,) = [line for line in log_lines(sandbox, "worker_1") if line.get("trace_id") == trace_id]
    (of_dispatcher,) = [line for line in log_lines(sandbox, "dispatcher") if of_worker["task_id"] in line.get("task_ids", ())]
    assert (of_dispatcher["event"], of_dispatcher["rows"]) == ("published", 1)


NO_TRACEPARENTS = (
    "",
    "00-0-0-01",
    f"00-{'0' * 32}-{'1' * 16}-01",
    f"00-{'g' * 32}-{'1' * 16}-01",
    f"ff-{'1' * 32}-{'1' * 16}-01",
    "x" * 5000,
)


def test_traceparent_that_is_none_begins_a_trace_of_the_request(sandbox: Sandbox) -> None:
    offered = {f"odd-{number}": traceparent for number, traceparent in enumerate(NO_TRACEPARENTS)}
    with sandbox.client() as client:
        for name, traceparent in offered.items():
            client.get("/stats", headers={"traceparent": traceparent, "X-Request-ID": name}).raise_for_status()

    def of_these(spans: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
        return {name: span for span in spans if (name := str(span.attributes.get("nexus.request_id"))) in offered}

    found = of_these(wait_for_spans(sandbox, lambda spans: len(of_these(spans)) == len(offered)))
    assert {span.parent_id for span in found.values()} == {""}
    assert [name for name, span in found.items() if span.trace_id in offered[name]] == []


def test_no_log_and_no_span_holds_content_or_a_secret(sandbox: Sandbox) -> None:
    canary, wrong = f"canary{secrets.token_hex(12)}", f"nxs_agent_{secrets.token_hex(20)}"
    running = sandbox.running
    with sandbox.client() as client:
        made = client.post("/keys", json={"role": "agent", "name": "holds a key", "agent_id": "ada"}).raise_for_status().json()["key"]
        content = {
            "content": f"The code is {canary}.",
            "actor": canary,
            "tags": [canary],
            "metadata": {canary: canary},
            "session_id": canary,
        }
        client.post("/memory/action", json=content, headers={"Idempotency-Key": canary}).raise_for_status()
        for method, path, body in (
            ("POST", "/memory/action", {"content": f"{canary}\0"}),
            ("POST", "/memory/action", {canary: canary}),
            ("POST", "/memory/search", {"query": canary}),
            ("POST", "/memory/search", {"query": canary, "mode": canary}),
            ("PUT", "/memory/working/plan", {"active_content": {"goal": canary}}),
            ("POST", "/memory/semantic", {"concept": canary, "definition": canary}),
            ("PUT", f"/consciousness/blocks/{canary}", {"value": canary}),
            ("POST", "/consciousness/checkpoints", {"state_data": {"task": canary}}),
            ("GET", f"/memory/episodic/{canary}", None),
            ("GET", f"/{canary}?{canary}={canary}", None),
            ("POST", "/memory/action", {"content": "x", "agent_id": f"{canary} not an agent"}),
        ):
            assert client.request(method, path, json=body).status_code < 500, path
        broken = client.post("/memory/action", content=b'{"content": "' + canary.encode(), headers={"Content-Type": "application/json"})
        assert broken.status_code == 400
        for header in ({"X-API-Key": wrong}, {"Authorization": f"Bearer {wrong}"}, {"Authorization": f"Basic {wrong}"}):
            assert httpx.get(f"{client.base_url}/stats", headers=header, trust_env=False).status_code == 401
        assert client.get("/stats", headers={"X-API-Key": made}).status_code == 200
    for port, path in ((running.flower_port, "/workers"), (running.mcp_port, "/mcp")):
        headers = {"Authorization": f"Bearer {wrong}"}
        assert (
            httpx.post(f"http://127.0.0.1:{port}{path}", auth=None, headers=headers, json={canary: canary}, trust_env=False).status_code
            >= 400
        )
    database = make_url(running.database_url)
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(host=database.host, port=database.port, user="nexus_app", password=wrong, dbname="nexus_memory")
    # What PostgreSQL says of the failing row stands in the DETAIL, which its log leaves out.
    with pytest.raises(psycopg2.errors.CheckViolation, match=canary):
        sandbox.sql(("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES ('not an agent', %s)", (canary,)))
    sandbox.wait_until_embedded()
    wait_for_spans(sandbox, lambda spans: any(span.attributes.get("http.route") == "/memory/semantic" for span in spans))
    time.sleep(2)  # The last spans, and what a log holds back.
    hidden = {canary, wrong, made, *(sandbox.settings.secret(name) for name in ALL_SECRETS)}
    hidden.add((sandbox.settings.data_dir / "postgres-superuser.txt").read_text(encoding="utf-8").strip())
    logs = [path for path in (sandbox.settings.data_dir / "logs").iterdir() if path.is_file()]
    programs = ("api", "worker_1", "dispatcher", "postgres", "redis", "flower", "mcp", "beat")
    assert {f"{program}.log" for program in programs} <= {log.name for log in logs}
    assert (sandbox.settings.data_dir / "logs" / "api.log").stat().st_size > 1000
    for log in logs:
        text = log.read_text(encoding="utf-8", errors="replace")
        assert [value for value in hidden if value in text] == [], log.name
    told = str(sandbox.collector.spans())
    assert [value for value in hidden if value in told] == []
    assert sandbox.collector.spans()
