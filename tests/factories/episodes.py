"""Episodes as the service takes them, and as plain SQL."""

import hashlib
from typing import Any

from app.episodes.models import NewEpisode


def new_episode(content: str = "the kettle is on the stove", **fields: Any) -> NewEpisode:
    """Return a valid episode; its request hash follows from its fields, as the API's does."""
    request = repr((content, sorted(fields.items(), key=lambda item: item[0])))
    return NewEpisode(content=content, request_sha256=hashlib.sha256(request.encode("utf-8", "surrogatepass")).digest(), **fields)
