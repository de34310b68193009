"""One keep-alive connection to the API, with as little of its own between the clock and the server as Python allows."""

import http.client
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import orjson

from app.errors import StackError

_TIMEOUT_SECONDS = 60.0
_Question = TypeVar("_Question")


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


def ask_at_once(
    url: str, headers: Mapping[str, str], questions: Sequence[_Question], clients: int, ask: Callable[[Client, _Question], object]
) -> list[float]:
    """Ask questions by several clients at once and return the seconds of each, in no order.

    Args:
        url: Of the API, without a path.
        headers: Sent with each request.
        questions: Shared among the clients.
        clients: Threads, with a connection each.
        ask: Asks one.

    Raises:
        StackError: One was not answered well.
    """
    seconds: list[float] = []

    def ask_all(mine: Sequence[_Question]) -> None:
        with Client(url, headers) as client:
            for question in mine:
                began = time.perf_counter()
                ask(client, question)
                seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=ask_all, args=(questions[number::clients],)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(seconds) != len(questions):
        raise StackError(f"{len(questions) - len(seconds)} searches failed")
    return seconds
