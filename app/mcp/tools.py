"""The memory as tools for agents, over the Model Context Protocol. Each tool makes one call of the API with the caller's own key."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from app.client.asynchronous import AsyncNexusClient
from app.client.transport import NexusApiError
from app.client.types import MemoryType, Mode, Priority
from app.mcp.strict import StrictServer

OpenClient = Callable[[Mapping[str, str] | None], AsyncNexusClient]
"""Returns a client with the key of a request's headers, or, without a request, with that of the process."""

_INSTRUCTIONS = """Your long-term memory. Search it before you answer from what you no longer see; store what you will want to know later,
in whole sentences that make sense on their own. Working memory is for what you have in mind now, and ends by itself."""

_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
_REPLACES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

_IN_A_PATH = r"^[^/]+$"
"""What can be one segment of a path; another would be the path of no route, and the API could not say whose name is wrong."""

Tags = Annotated[list[str], Field(description="Tags, to filter by later.")]
Limit = Annotated[int, Field(ge=1, le=100, description="How many at most.")]


def build_server(open_client: OpenClient, version: str) -> StrictServer:
    """Return the server with its tools.

    Args:
        open_client: Opens a client for one call.
        version: What the server says of itself.
    """
    server = StrictServer("nexus-cerebro", instructions=_INSTRUCTIONS, version=version, log_level="WARNING")

    async def call(context: Context[Any, Any], use: Callable[[AsyncNexusClient], Any]) -> Any:
        request = context.request_context.request
        headers = None if request is None else cast("Mapping[str, str]", request.headers)
        try:
            async with open_client(headers) as client:
                return await use(client)
        except NexusApiError as error:
            # The API never quotes what was sent, so its words may go to the model and into the log.
            raise ToolError(f"{error.code}: {error.detail}") from error

    @server.tool(annotations=_ADDS)
    async def store_memory(
        context: Context[Any, Any],
        *,
        content: Annotated[str, Field(description="What happened or was said, in whole sentences.")],
        actor: Annotated[str | None, Field(description="Who said or did it.")] = None,
        session_id: Annotated[str | None, Field(description="The conversation it belongs to.")] = None,
        tags: Tags = [],  # noqa: B006 - the SDK makes the schema of it and never changes it
        importance_score: Annotated[float, Field(ge=0, le=1, description="0 trivial, 1 vital.")] = 0.5,
    ) -> dict[str, Any]:
        """Store one memory for good. Returns a receipt that proves it."""
        fields: dict[str, Any] = {"actor": actor, "session_id": session_id, "tags": tags, "importance_score": importance_score}
        return dict(await call(context, lambda client: client.store(content, **fields)))

    @server.tool(annotations=_READS)
    async def search_memory(
        context: Context[Any, Any],
        *,
        query: Annotated[str, Field(description="A question, or words that the memory holds.")],
        limit: Limit = 10,
        mode: Annotated[Mode, Field(description="By meaning and words, by meaning, or by words.")] = "hybrid",
        memory_types: Annotated[list[MemoryType], Field(description="Which kinds of memory.")] = ["episodic", "semantic"],  # noqa: B006
        tags_any: Annotated[list[str] | None, Field(description="Only memories with one of these tags.")] = None,
        session_id: Annotated[str | None, Field(description="Only memories of this conversation.")] = None,
        occurred_after: Annotated[str | None, Field(description="Only memories from this ISO 8601 moment on.")] = None,
        occurred_before: Annotated[str | None, Field(description="Only memories before this ISO 8601 moment.")] = None,
    ) -> dict[str, Any]:
        """Find memories, the best first."""
        given = {"tags_any": tags_any, "session_id": session_id, "occurred_after": occurred_after, "occurred_before": occurred_before}
        filters = {name: value for name, value in given.items() if value is not None}
        return dict(
            await call(context, lambda client: client.search(query, limit=limit, mode=mode, memory_types=memory_types, filters=filters))
        )

    @server.tool(annotations=_READS)
    async def recent_memories(
        context: Context[Any, Any],
        limit: Limit = 20,
        session_id: Annotated[str | None, Field(description="Only memories of this conversation.")] = None,
    ) -> dict[str, Any]:
        """Return the latest memories, the latest first."""
        return {"items": await call(context, lambda client: client.recent(limit=limit, session_id=session_id))}

    @server.tool(annotations=_READS)
    async def get_working_memory(
        context: Context[Any, Any],
        context_id: Annotated[str, Field(pattern=_IN_A_PATH, description="What it was called when it was set.")],
    ) -> dict[str, Any]:
        """Return what is in mind under a name."""
        return dict(await call(context, lambda client: client.get_working(context_id)))

    @server.tool(annotations=_REPLACES)
    async def set_working_memory(
        context: Context[Any, Any],
        context_id: Annotated[str, Field(pattern=_IN_A_PATH, description="What to call it; what was there under this name is replaced.")],
        active_content: Annotated[dict[str, Any], Field(description="A JSON object.")],
        ttl_seconds: Annotated[int | None, Field(ge=1, le=31_536_000, description="How long to keep it; a day by default.")] = None,
        priority: Priority = "normal",
    ) -> dict[str, Any]:
        """Keep something in mind for a while."""
        return dict(
            await call(context, lambda client: client.put_working(context_id, active_content, ttl_seconds=ttl_seconds, priority=priority))
        )

    @server.tool(annotations=_REPLACES)
    async def forget_memory(
        context: Context[Any, Any],
        episode_id: Annotated[str, Field(pattern=_IN_A_PATH, description="Of the memory, as a search or receipt says it.")],
    ) -> dict[str, Any]:
        """Delete one memory from every store, for good. Returns a tombstone that proves it."""
        return dict(await call(context, lambda client: client.delete(episode_id)))

    return server
