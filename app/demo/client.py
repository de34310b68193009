"""What the demo asks of a running service, through the client that everybody uses; every failure becomes one clear line."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import httpx

from app.client import types
from app.client.sync import NexusClient
from app.client.transport import NexusApiError
from app.demo.story import DemoEpisode, DemoError, DemoSearch

BATCH_EPISODES = 100
"""Episodes of one POST /memory/actions."""

VERIFY_RECEIPTS = 1000
"""Receipts of one POST /integrity/verify; the service takes no more at once."""

RECEIPT_FIELDS = ("episode_id", "seq", "version", "content_sha256", "nonce")
RESULT_LIMIT = 5
DETAIL_CHARS = 300

Receipt = dict[str, Any]
T = TypeVar("T")


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

    Raises:
        DemoError: The URL or the key cannot be used at all.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        if not api_key or not api_key.isascii() or not api_key.isprintable():
            raise DemoError("the API key is empty or holds characters that no key has; check the key file")
        self._base_url = base_url
        self._api_key = api_key
        self._opened = ExitStack()
        self._by_agent: dict[str | None, NexusClient] = {}
        self._of(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._opened.close()

    def store(self, agent_id: str, episodes: Sequence[DemoEpisode]) -> list[Receipt]:
        """Store at most BATCH_EPISODES episodes in one request; return their receipts in the same order."""

        def ask() -> list[Receipt]:
            receipts = self._of(agent_id).store_many([episode.request_item() for episode in episodes])
            return [{name: dict(receipt)[name] for name in RECEIPT_FIELDS} for receipt in receipts]

        receipts = self._ask("POST /memory/actions", ask)
        if len(receipts) != len(episodes):
            raise DemoError(f"POST /memory/actions did not answer one receipt for each of the {len(episodes)} episodes")
        return receipts

    def queue(self) -> QueueCounts:
        """Return the counts of the whole service's embedding queue."""

        def ask() -> QueueCounts:
            counts = self._of(None).stats()["embeddings_queue"]
            return QueueCounts(*(int(counts[state]) for state in ("pending", "processing", "done", "dead")))

        return self._ask("GET /stats", ask)

    def search(self, search: DemoSearch) -> Answer:
        """Return the best results for one search."""

        def ask() -> Answer:
            started = time.perf_counter()
            answer = self._of(search.agent_id).search(search.query, mode=search.mode, limit=RESULT_LIMIT, filters=search.filters)
            round_trip_ms = (time.perf_counter() - started) * 1000
            hits = [
                Hit(str(found["episode_id"]), float(found["score"]), str(found["content"]), str(found["occurred_at"]))
                for found in answer["results"]
            ]
            return Answer(hits, int(answer["pending_embeddings"]), float(answer["took_ms"]), round_trip_ms)

        return self._ask("POST /memory/search", ask)

    def verify(self, agent_id: str, receipts: Sequence[Receipt]) -> dict[str, str]:
        """Return the service's verdict on each receipt, by episode_id; receipts it does not mention are absent."""

        def ask(part: Sequence[Receipt]) -> dict[str, str]:
            lines = self._of(agent_id).verify(cast("Sequence[types.Receipt]", part))["verdicts"]
            return {str(line["episode_id"]): str(line["verdict"]) for line in lines}

        verdicts: dict[str, str] = {}
        for start in range(0, len(receipts), VERIFY_RECEIPTS):
            part = receipts[start : start + VERIFY_RECEIPTS]
            verdicts |= self._ask("POST /integrity/verify", partial(ask, part))
        return verdicts

    def _of(self, agent_id: str | None) -> NexusClient:
        """Return the client that speaks for an agent, or for nobody in particular."""
        if agent_id not in self._by_agent:
            try:
                # A proxy of the environment must not catch requests to this machine.
                client = NexusClient(self._base_url, self._api_key, agent_id, trust_env=False)
            except httpx.InvalidURL as error:
                raise DemoError(f"{self._base_url} is not a URL; it should look like http://127.0.0.1:8002") from error
            self._by_agent[agent_id] = self._opened.enter_context(client)
        return self._by_agent[agent_id]

    def _ask(self, where: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except NexusApiError as error:
            if error.status is None:
                raise DemoError(f"nothing answers at {self._base_url}; is the service up? `make run` starts it") from error
            said = f"{error.code}: {error.detail}"[:DETAIL_CHARS].replace("\n", " ").rstrip()
            raise DemoError(f"{where} answered {error.status} {said}") from error
        except (LookupError, TypeError, ValueError) as error:
            raise DemoError(f"the answer of {where} is not as expected; the service and this demo are of different versions") from error
