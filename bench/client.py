"""One keep-alive connection to the API, with as little of its own between the clock and the server as Python allows."""

import http.client
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from app.errors import StackError

_TIMEOUT_SECONDS = 60.0


class Client:
    """Calls to the API over one connection.

    Args:
        url: Of the API, without a path.
        headers: Sent with each request: key, agent, content type.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        self._headers = dict(headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()

    def post(self, path: str, body: Any) -> Any:
        """Return the decoded answer.

        Raises:
            StackError: The answer is no success.
        """
        self._connection.request("POST", path, orjson.dumps(body), self._headers)
        answer = self._connection.getresponse()
        payload = answer.read()
        if not 200 <= answer.status < 300:
            raise StackError(f"POST {path} was answered {answer.status}: {payload[:300].decode(errors='replace')}")
        return orjson.loads(payload)

    def store(self, content: str) -> str:
        """Store one episode and return its id."""
        return str(self.post("/memory/action", {"content": content})["episode_id"])

    def store_many(self, contents: Sequence[str]) -> None:
        """Store up to 1,000 episodes."""
        self.post("/memory/actions", {"items": [{"content": content} for content in contents]})

    def search(self, query: str, mode: str, limit: int = 10) -> list[str]:
        """Return the ids of what was found, best first."""
        found = self.post("/memory/search", {"query": query, "mode": mode, "limit": limit})["results"]
        return [str(hit["episode_id"]) for hit in found]
