"""The client: a method for each route that an agent calls, with the answers as typed dictionaries."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

import httpx

from app.client.transport import Call, client_settings, line_of, may_retry, member, result, segment, unreachable, wait_seconds, without_none
from app.client.types import (
    Block,
    BlockPage,
    Checkpoint,
    CheckpointPage,
    Episode,
    EpisodeContext,
    EpisodePage,
    Forgotten,
    ImportReport,
    MemoryType,
    Mode,
    Priority,
    Project,
    Receipt,
    Restored,
    SearchResults,
    SemanticMemory,
    SemanticPage,
    Tombstone,
    Verdicts,
    WorkingContext,
    WorkingPage,
)


class NexusClient:
    """Calls a service; a context manager.

    It covers what an agent does with its memory. What operators ask for (keys, the audit log, the queue, health, metrics and the accounting
    identity) is on the command line, `python -m app`.

    Requests are sent again when the service is busy or away, an export excepted; a store carries an idempotency key, so it is stored once
    however often it is sent.

    Args:
        base_url: For example http://127.0.0.1:8002.
        api_key: The key.
        agent_id: Whose memory, for keys that serve any agent.
        timeout_seconds: How long one attempt may take.
        trust_env: Whether proxies that the environment names are used.
        transport: What carries requests, for tests; None is the network.

    Raises of every method:
        NexusApiError: The service refused the request, or could not be reached.
        ValueError: An argument cannot be sent: a number that JSON has not, half a surrogate pair, a header that is not ASCII.
        TypeError: An argument is nothing that JSON has.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        agent_id: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        trust_env: bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        settings = client_settings(base_url, api_key, agent_id, timeout_seconds, trust_env=trust_env)
        self._http = httpx.Client(**settings, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, call: Call) -> Any:
        attempt = 0
        while True:
            attempt += 1
            response = None
            try:
                response = self._http.request(call.method, call.path, **call.arguments())
            except httpx.HTTPError as error:
                if not may_retry(call, None, attempt):
                    raise unreachable(error) from error
            except httpx.InvalidURL as error:
                raise ValueError(f"an argument cannot be sent: {error}") from error
            if response is not None and not may_retry(call, response, attempt):
                return result(response)
            time.sleep(wait_seconds(attempt, response))

    # Episodes.

    def store(self, content: str, *, idempotency_key: str | None = None, **fields: Any) -> Receipt:
        """Store one episode and return its receipt.

        Args:
            content: What happened.
            idempotency_key: Makes the write safe to repeat over restarts of the caller; made up when left out.
            fields: The other fields of POST /memory/action: actor, session_id, tags, importance_score, occurred_at, metadata, ...
        """
        body = {"content": content, "idempotency_key": idempotency_key or uuid.uuid4().hex, **fields}
        return cast("Receipt", self._send(Call("POST", "/memory/action", json=body)))

    def store_many(self, items: Sequence[Mapping[str, Any]]) -> list[Receipt]:
        """Store up to 1000 episodes, all or none, and return their receipts in order."""
        keyed = [{"idempotency_key": uuid.uuid4().hex, **item} for item in items]
        return cast("list[Receipt]", member(self._send(Call("POST", "/memory/actions", json={"items": keyed})), "items"))

    def search(
        self,
        query: str,
        *,
        limit: int = 10,
        mode: Mode = "hybrid",
        memory_types: Sequence[MemoryType] = ("episodic",),
        filters: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        recency_weight: float = 0.0,
        importance_weight: float = 0.0,
    ) -> SearchResults:
        """Find memories by meaning, by words, or both; the best first."""
        body = {
            "query": query,
            "limit": limit,
            "mode": mode,
            "memory_types": list(memory_types),
            "filters": dict(filters) if filters else None,
            "min_score": min_score,
            "recency_weight": recency_weight,
            "importance_weight": importance_weight,
        }
        return cast("SearchResults", self._send(Call("POST", "/memory/search", json=body)))

    def recent(self, *, limit: int = 20, session_id: str | None = None, tags: Sequence[str] = ()) -> list[Episode]:
        """Return the latest episodes, the latest first."""
        params = {"limit": limit, "session_id": session_id, "tags": list(tags) or None}
        return cast("list[Episode]", member(self._send(Call("GET", "/memory/episodic/recent", params=params)), "items"))

    def list_page(self, *, cursor: str | None = None, limit: int = 20, order: str = "newest", **filters: Any) -> EpisodePage:
        """Return one page of episodes; filters are those of GET /memory/episodic."""
        if isinstance(filters.get("metadata"), dict):
            filters["metadata"] = json.dumps(filters["metadata"])
        params = {"cursor": cursor, "limit": limit, "order": order, **filters}
        return cast("EpisodePage", self._send(Call("GET", "/memory/episodic", params=params)))

    def list_all(self, *, order: str = "newest", **filters: Any) -> Iterator[Episode]:
        """Yield every episode that passes the filters, page after page."""
        cursor = None
        while True:
            page = self.list_page(cursor=cursor, limit=100, order=order, **filters)
            for episode in member(page, "items"):  # noqa: UP028 - the asynchronous client has the same line
                yield episode
            cursor = member(page, "next_cursor")
            if cursor is None:
                return

    def get(self, episode_id: str) -> Episode:
        """Return one episode."""
        return cast("Episode", self._send(Call("GET", f"/memory/episodic/{segment(episode_id)}")))

    def context(self, episode_id: str, *, before: int = 5, after: int = 5) -> EpisodeContext:
        """Return an episode with the turns around it in its session."""
        call = Call("GET", f"/memory/episodic/{segment(episode_id)}/context", params={"before": before, "after": after})
        return cast("EpisodeContext", self._send(call))

    def change(self, episode_id: str, changes: Mapping[str, Any], *, expected_version: int | None = None) -> Receipt:
        """Change fields of an episode, None clears, and return the receipt of what is stored now."""
        body = {**changes, **without_none({"expected_version": expected_version})}
        # With a version expected, a second time could be refused because of the first.
        call = Call(
            "PATCH", f"/memory/episodic/{segment(episode_id)}", content=_json(body), headers=_JSON, is_safe=expected_version is None
        )
        return cast("Receipt", self._send(call))

    def delete(self, episode_id: str) -> Tombstone:
        """Delete an episode from every store and return its tombstone."""
        return cast("Tombstone", self._send(Call("DELETE", f"/memory/episodic/{segment(episode_id)}", is_safe=False)))

    def projects(self) -> list[Project]:
        """Return the agent's projects by name."""
        return cast("list[Project]", member(self._send(Call("GET", "/projects")), "items"))

    # Working memory.

    def put_working(
        self,
        context_id: str,
        active_content: Mapping[str, Any],
        *,
        ttl_seconds: int | None = None,
        priority: Priority = "normal",
        session_id: str | None = None,
        context_type: str = "general",
    ) -> WorkingContext:
        """Keep a working memory, replacing what is there."""
        body = {
            "active_content": dict(active_content),
            "ttl_seconds": ttl_seconds,
            "priority": priority,
            "session_id": session_id,
            "context_type": context_type,
        }
        return cast("WorkingContext", self._send(Call("PUT", f"/memory/working/{segment(context_id)}", json=body)))

    def get_working(self, context_id: str, *, refresh: bool = False) -> WorkingContext:
        """Return a working memory; with refresh it lives for its whole time again."""
        params = {"refresh": "true" if refresh else None}
        return cast("WorkingContext", self._send(Call("GET", f"/memory/working/{segment(context_id)}", params=params)))

    def delete_working(self, context_id: str) -> None:
        """Delete a working memory."""
        self._send(Call("DELETE", f"/memory/working/{segment(context_id)}", is_safe=False))

    def list_working(self, *, cursor: str | None = None, limit: int = 20, **filters: Any) -> WorkingPage:
        """Return one page of working memories, the most important first."""
        return cast("WorkingPage", self._send(Call("GET", "/memory/working", params={"cursor": cursor, "limit": limit, **filters})))

    # Semantic memories.

    def store_semantic(self, concept: str, definition: str, **fields: Any) -> SemanticMemory:
        """Store something that the agent knows."""
        body = {"concept": concept, "definition": definition, **fields}
        return cast("SemanticMemory", self._send(Call("POST", "/memory/semantic", json=body, is_safe=False)))

    def get_semantic(self, memory_id: str) -> SemanticMemory:
        """Return one semantic memory."""
        return cast("SemanticMemory", self._send(Call("GET", f"/memory/semantic/{segment(memory_id)}")))

    def change_semantic(self, memory_id: str, changes: Mapping[str, Any]) -> SemanticMemory:
        """Change fields of a semantic memory."""
        return cast("SemanticMemory", self._send(Call("PATCH", f"/memory/semantic/{segment(memory_id)}", json=dict(changes))))

    def delete_semantic(self, memory_id: str) -> None:
        """Delete a semantic memory."""
        self._send(Call("DELETE", f"/memory/semantic/{segment(memory_id)}", is_safe=False))

    def list_semantic(self, *, cursor: str | None = None, limit: int = 20, concept: str | None = None) -> SemanticPage:
        """Return one page of semantic memories, the newest first."""
        params = {"cursor": cursor, "limit": limit, "concept": concept}
        return cast("SemanticPage", self._send(Call("GET", "/memory/semantic", params=params)))

    # Memory blocks and checkpoints.

    def create_block(self, label: str, value: str, *, read_only: bool = False) -> Block:
        """Store a memory block under a new label."""
        call = Call("POST", "/consciousness/blocks", json={"label": label, "value": value, "read_only": read_only}, is_safe=False)
        return cast("Block", self._send(call))

    def put_block(self, label: str, value: str, *, read_only: bool | None = None, expected_version: int | None = None) -> Block:
        """Give a memory block a value."""
        body = {"value": value, "read_only": read_only, "expected_version": expected_version}
        call = Call("PUT", f"/consciousness/blocks/{segment(label)}", json=body, is_safe=expected_version is None)
        return cast("Block", self._send(call))

    def get_block(self, label: str) -> Block:
        """Return a memory block."""
        return cast("Block", self._send(Call("GET", f"/consciousness/blocks/{segment(label)}")))

    def delete_block(self, label: str) -> None:
        """Delete a memory block."""
        self._send(Call("DELETE", f"/consciousness/blocks/{segment(label)}", is_safe=False))

    def list_blocks(self, *, cursor: str | None = None, limit: int = 20) -> BlockPage:
        """Return one page of memory blocks in order of their labels."""
        return cast("BlockPage", self._send(Call("GET", "/consciousness/blocks", params={"cursor": cursor, "limit": limit})))

    def checkpoint(self, state_data: Mapping[str, Any], *, checkpoint_type: str = "manual") -> Checkpoint:
        """Keep a state together with the agent's memory blocks."""
        body = {"state_data": dict(state_data), "checkpoint_type": checkpoint_type}
        return cast("Checkpoint", self._send(Call("POST", "/consciousness/checkpoints", json=body, is_safe=False)))

    def get_checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """Return a checkpoint."""
        return cast("Checkpoint", self._send(Call("GET", f"/consciousness/checkpoints/{segment(checkpoint_id)}")))

    def list_checkpoints(self, *, cursor: str | None = None, limit: int = 20, checkpoint_type: str | None = None) -> CheckpointPage:
        """Return one page of checkpoints, the newest first."""
        params = {"cursor": cursor, "limit": limit, "checkpoint_type": checkpoint_type}
        return cast("CheckpointPage", self._send(Call("GET", "/consciousness/checkpoints", params=params)))

    def restore(self, checkpoint_id: str, *, write_blocks: bool = False) -> Restored:
        """Return a checkpoint's state, and how far the agent still is who it was."""
        call = Call("POST", f"/consciousness/checkpoints/{segment(checkpoint_id)}/restore", json={"write_blocks": write_blocks})
        return cast("Restored", self._send(call))

    # Proof, and the agent as a whole.

    def verify(self, receipts: Sequence[Receipt]) -> Verdicts:
        """Return what became of up to 1000 receipts."""
        return cast("Verdicts", self._send(Call("POST", "/integrity/verify", json={"receipts": list(receipts)})))

    def proof(self, episode_id: str, version: int | None = None) -> dict[str, Any]:
        """Return the proof that a version of an episode stands in the sealed ledger."""
        return cast("dict[str, Any]", self._send(Call("GET", f"/integrity/proof/{segment(episode_id)}", params={"version": version})))

    def heads(self) -> list[dict[str, Any]]:
        """Return the signed heads of the ledger."""
        return cast("list[dict[str, Any]]", member(self._send(Call("GET", "/integrity/heads")), "heads"))

    def stats(self) -> dict[str, Any]:
        """Return counts of the agent."""
        return cast("dict[str, Any]", self._send(Call("GET", "/stats")))

    def export(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the agent's export; without an end line at last it was cut off."""
        try:
            with self._http.stream("GET", "/export") as response:
                if not response.is_success:
                    response.read()
                    result(response)
                for line in response.iter_lines():
                    yield line_of(response, line)
        except httpx.HTTPError as error:
            raise unreachable(error) from error

    def import_lines(self, lines: Sequence[Mapping[str, Any]]) -> ImportReport:
        """Store lines of an export under the ids they bring."""
        content = b"".join(_json(line) + b"\n" for line in lines)
        return cast("ImportReport", self._send(Call("POST", "/import", content=content, headers=_NDJSON)))

    def forget_agent(self, agent_id: str) -> Forgotten:
        """Delete everything of an agent from every store."""
        return cast("Forgotten", self._send(Call("DELETE", f"/agents/{segment(agent_id)}")))


_JSON = {"Content-Type": "application/json"}
_NDJSON = {"Content-Type": "application/x-ndjson"}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
