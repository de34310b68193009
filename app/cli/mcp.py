"""`mcp`: the memory as tools for agents."""

import click

from app.config import load_settings


@click.group()
def mcp() -> None:
    """The memory as tools for agents, over the Model Context Protocol."""


@mcp.command()
def serve() -> None:
    """Serve streamable HTTP at /mcp on MCP_HOST:MCP_PORT; each agent brings its key."""
    from app.mcp.server import serve_http

    serve_http(load_settings())


@mcp.command()
def stdio() -> None:
    """Serve the program that started this one; the key is in NEXUS_API_KEY_FILE or NEXUS_API_KEY, an agent in NEXUS_AGENT_ID."""
    from app.mcp.server import serve_stdio

    serve_stdio(load_settings())
