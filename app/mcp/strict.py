"""A server whose tools take what they name and nothing else, and whose refusals repeat nothing that was sent but an argument's name."""

from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools.base import Tool
from pydantic import ValidationError

_LONGEST_NAME = 64


class StrictServer(MCPServer[Any]):
    """The SDK's server. By itself it drops arguments that a tool does not know, and quotes the values that do not fit."""

    async def list_tools(self) -> Any:
        """Return the tools; their schemas say that they take nothing else."""
        for tool in self._tool_manager.list_tools():
            tool.parameters["additionalProperties"] = False
        return await super().list_tools()

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None) -> Any:
        """Call a tool.

        Raises:
            ToolError: There is no such tool, it does not take these arguments, or it failed.
        """
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            raise ToolError("unknown_tool: tools/list names those that are there")
        _require_arguments(tool, arguments)
        return await super().call_tool(name, arguments, context)


def _require_arguments(tool: Tool, arguments: dict[str, Any]) -> None:
    unknown = sorted(arguments.keys() - tool.parameters["properties"].keys())
    problems = [f"{name[:_LONGEST_NAME]}: this tool has no such argument" for name in unknown]
    try:
        tool.fn_metadata.validate_arguments({name: value for name, value in arguments.items() if name not in unknown})
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        problems += [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found]
    if problems:
        raise ToolError("invalid_request: " + "; ".join(problems))
