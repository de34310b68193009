"""What the demo asks of a running service over HTTP; every failure becomes one clear line."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from app.demo.story import DemoEpisode, DemoError, DemoSearch

BATCH_EPISODES = 100
"""Episodes of one POST /memory/actions."""

VERIFY_RECEIPTS = 1000
"""Receipts of one POST /integrity/verify; the service takes no more at once."""

RECEIPT_FIELDS = ("episode_id", "seq", "version", "content_sha256", "nonce")
RESULT_LIMIT = 5
DETAIL_CHARS = 300

Receipt = dict[str, Any]


@dataclass(frozen=True)
class QueueCounts:
    """Rows of the embedding queue by state."""

    pending: int
    processing: int
    done: int
    dead: int

    @property
    def outstanding(self) -> int:
        """Rows that still wait for their vector."""
        return self.pending + self.processing

    @property
    def total(self) -> int:
        """Rows in any state: one for each target ever accepted."""
        return self.outstanding + self.done + self.dead


@dataclass(frozen=True)
class Hit:
    """One result of a search."""

    episode_id: str
    score: float
    content: str
    occurred_at: str


@dataclass(frozen=True)
class Answer:
    """Results of a search, best first.

    Attributes:
        pending: Episodes of the agent that have no vector yet.
        took_ms: Time by the service's own clock.
        round_trip_ms: Time that this client waited.
    """

    hits: list[Hit]
    pending: int
    took_ms: float
    round_trip_ms: float


class DemoClient:
    """The few calls that the demo makes; a context manager.

    Args:
        base_url: For example http://127.0.0.1:8002.
        api_key: Key of an administrator, since the demo writes as several agents.
        timeout_seconds: How long one request may take.

    Raises:
        DemoError: The URL or the key cannot be used at all.
    """

    def __init__(self, base_url: str, api_key: str, timeout_seconds: float = 30.0) -> None:
        self._base_url = base_url
        if not api_key or not api_key.isascii() or not api_key.isprintable():
            raise DemoError("the API key is empty or holds characters that no key has; check the key file")
        try:
            # trust_env=False: a proxy of the environment must not catch requests to this machine.
            self._http = httpx.Client(
                base_url=base_url,
                headers={"X-API-Key": api_key},
                timeout=httpx.Timeout(timeout_seconds, connect=5.0),
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise DemoError(f"{base_url} is not a URL; it should look like http://127.0.0.1:8002") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def store(self, agent_id: str, episodes: Sequence[DemoEpisode]) -> list[Receipt]:
        """Store at most BATCH_EPISODES episodes in one request; return their receipts in the same order."""
        where = "POST /memory/actions"
        answer, _ = self._call("POST", "/memory/actions", agent_id, {"items": [episode.request_item() for episode in episodes]})
        receipts = _list(answer, "items", where)
        if len(receipts) != len(episodes):
            raise DemoError(f"{where} did not answer one receipt for each of the {len(episodes)} episodes")
        return [{name: _read(receipt, name, where) for name in RECEIPT_FIELDS} for receipt in receipts]

    def queue(self) -> QueueCounts:
        """Return the counts of the whole service's embedding queue."""
        answer, _ = self._call("GET", "/stats")
        counts = _read(answer, "embeddings_queue", "GET /stats")
        states = (_number(counts, state, "GET /stats") for state in ("pending", "processing", "done", "dead"))
        return QueueCounts(*(int(count) for count in states))

    def search(self, search: DemoSearch) -> Answer:
        """Return the best results for one search."""
        where = "POST /memory/search"
        body: dict[str, Any] = {"query": search.query, "mode": search.mode, "limit": RESULT_LIMIT}
        if search.filters:
            body["filters"] = search.filters
        answer, round_trip_ms = self._call("POST", "/memory/search", search.agent_id, body)
        hits = [
            Hit(
                episode_id=str(_read(result, "episode_id", where)),
                score=_number(result, "score", where),
                content=str(_read(result, "content", where)),
                occurred_at=str(_read(result, "occurred_at", where)),
            )
            for result in _list(answer, "results", where)
        ]
        return Answer(hits, int(_number(answer, "pending_embeddings", where)), _number(answer, "took_ms", where), round_trip_ms)

    def verify(self, agent_id: str, receipts: Sequence[Receipt]) -> dict[str, str]:
        """Return the service's verdict on each receipt, by episode_id; receipts it does not mention are absent."""
        where = "POST /integrity/verify"
        verdicts: dict[str, str] = {}
        for start in range(0, len(receipts), VERIFY_RECEIPTS):
            part = list(receipts[start : start + VERIFY_RECEIPTS])
            answer, _ = self._call("POST", "/integrity/verify", agent_id, {"receipts": part})
            for line in _list(answer, "verdicts", where):
                verdicts[str(_read(line, "episode_id", where))] = str(_read(line, "verdict", where))
        return verdicts

    def _call(self, method: str, path: str, agent_id: str | None = None, body: dict[str, Any] | None = None) -> tuple[Any, float]:
        """Return the parsed answer and the round trip in milliseconds."""
        headers = {} if agent_id is None else {"X-Agent-Id": agent_id}
        started = time.perf_counter()
        try:
            response = self._http.request(method, path, json=body, headers=headers)
        except httpx.ConnectError as error:
            raise DemoError(f"nothing answers at {self._base_url}; is the service up? `make run` starts it") from error
        except httpx.TimeoutException as error:
            raise DemoError(f"{method} {path} was not answered in time ({type(error).__name__})") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DemoError(f"{method} {path} failed: {type(error).__name__}: {error}") from error
        round_trip_ms = (time.perf_counter() - started) * 1000
        if not response.is_success:
            raise DemoError(f"{method} {path} answered {response.status_code}{_reason(response)}")
        try:
            return response.json(), round_trip_ms
        except ValueError as error:
            raise DemoError(f"{method} {path} did not answer JSON; is {self._base_url} really this service?") from error


def _reason(response: httpx.Response) -> str:
    """Return what a problem document says, on one line, or nothing."""
    try:
        problem = response.json()
    except ValueError:
        return ""
    if not isinstance(problem, dict):
        return ""
    said = [str(problem[name]) for name in ("code", "detail") if problem.get(name)] or [str(problem.get("title", ""))]
    return f" {': '.join(said)}"[:DETAIL_CHARS].replace("\n", " ").rstrip()


def _read(answer: Any, name: str, where: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise DemoError(f"the answer of {where} has no `{name}`; the service and this demo are of different versions")
    return answer[name]


def _list(answer: Any, name: str, where: str) -> list[Any]:
    value = _read(answer, name, where)
    if not isinstance(value, list):
        raise DemoError(f"`{name}` in the answer of {where} is not a list")
    return value


def _number(answer: Any, name: str, where: str) -> float:
    value = _read(answer, name, where)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DemoError(f"`{name}` in the answer of {where} is not a number")
    return float(value)
