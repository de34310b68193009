"""Runs the embedded servers and a small web server in the foreground, as `stack up` runs the whole stack.

Usage: python -m tests.integration.stack_of_servers, with DATA_DIR, SECRETS_DIR and PORT set.
"""

import socket
import sys
from collections.abc import Sequence

from app.config import Settings, load_settings
from app.errors import NexusError
from app.stack.foreground import stopped_at_the_end
from app.stack.layout import Layout
from app.stack.programs import Program
from app.stack.service import Stack


def web_server(settings: Settings, layout: Layout) -> Sequence[Program]:
    """Return a table with one small service on PORT."""
    command = [sys.executable, "-m", "http.server", str(settings.port), "--bind", "127.0.0.1", "--directory", str(layout.beat)]
    return [Program("web", command, start_seconds=1, start_retries=2)]


def web_problem(settings: Settings) -> str | None:
    """Return why the small service does not answer yet."""
    try:
        socket.create_connection(("127.0.0.1", settings.port), timeout=2).close()
    except OSError as error:
        return str(error)
    return None


def server_stack(settings: Settings) -> Stack:
    """Return a stack of PostgreSQL, Redis and the small service, without schema."""
    return Stack(settings, prepare=lambda _settings, _dsn: None, services=web_server, problem=web_problem)


def main() -> None:
    """Run until a signal, as the command line does."""
    try:
        stack = server_stack(load_settings())
        with stopped_at_the_end(stack):
            stack.up()
            print("ready", flush=True)
            stack.watch()
    except NexusError as error:
        sys.exit(f"error: {error.message}")


if __name__ == "__main__":
    main()
