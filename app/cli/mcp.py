"""`mcp`: the memory as tools for agents."""

import click

from app.cli.command import Group
from app.config import load_settings


@click.group(cls=Group)
def mcp() -> None:
    """The memory as tools for agents, over the Model Context Protocol."""


@mcp.command(without_json="it serves until it is stopped")
def serve() -> None:
    """Serve streamable HTTP at /mcp on MCP_HOST:MCP_PORT; each agent brings its key."""
    from app.mcp.server import serve_http

    serve_http(load_settings())


@mcp.command(
    examples=["NEXUS_API_KEY_FILE=key.txt python -m app mcp stdio"],
    without_json="stdout belongs to the protocol",
)
def stdio() -> None:
    """Serve the program that started this one, over stdin and stdout.

    The key is in NEXUS_API_KEY_FILE or NEXUS_API_KEY; a key for any agent needs one in NEXUS_AGENT_ID.
    """
    from app.mcp.server import serve_stdio

    serve_stdio(load_settings())
