"""Whether the dispatcher or a worker of this host is at work: `python -m tasks.alive worker`, the health check of a container."""

import socket
import sys

from app.config import load_settings
from app.db import Database
from app.errors import NexusError
from app.queue.status import QueueStatusService

_KINDS = ("dispatcher", "worker")


def main(arguments: list[str]) -> int:
    """Return 0 when PostgreSQL heard from such a process of this host lately, 1 when it did not or cannot say, 2 for another word."""
    if len(arguments) != 1 or arguments[0] not in _KINDS:
        print(f"usage: python -m tasks.alive {'|'.join(_KINDS)}", file=sys.stderr)
        return 2
    kind, hostname = arguments[0], socket.gethostname()
    try:
        settings = load_settings()
        database = Database(settings, "nexus_worker", "nexus health check")
        try:
            heard = QueueStatusService(database, settings).is_heard_from(kind, hostname)
        finally:
            database.close()
    except NexusError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    print(f"{kind} of {hostname}: {'alive' if heard else 'not heard from lately'}")
    return 0 if heard else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
