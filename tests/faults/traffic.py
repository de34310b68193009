"""Clients of the soak: they write over HTTP, edit and delete as the API's role, and remember what they were promised."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from uuid import UUID, uuid4

import httpx

from app.errors import DatabaseUnavailable
from tests.factories.episodes import delete, edit
from tests.faults.world import World

_REQUEST_SECONDS = 20.0
_RETRY_SECONDS = 0.5
_words = ("river", "granite", "lantern", "winter", "copper", "orchard", "signal", "thicket", "harbour", "violin", "meadow", "ledger")


def sentence(choose: random.Random) -> str:
    """Return a text that no other episode has."""
    return f"note {uuid4().hex[:8]}: " + " ".join(choose.choices(_words, k=choose.randint(5, 40)))


class Traffic:
    """Continuous writes, edits and deletes, each in a thread of its own.

    Args:
        world: Whose database is edited.
        base_url: Of the API.
        agents: Who writes.
        writes_per_second: How often; one edit comes for each three writes, one deletion for each six.

    Attributes:
        accepted: Every episode whose writer was told 201 or 200, by agent.
        touched: Episodes whose deletion was asked for, whether or not the answer came.
        done: How often each thing was done.
        failures: How often each kind of answer was a failure; the client tried again.
    """

    def __init__(self, world: World, base_url: str, agents: tuple[str, ...], writes_per_second: float) -> None:
        self.accepted: dict[str, list[UUID]] = {agent: [] for agent in agents}
        self.touched: set[UUID] = set()
        self.done: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._world = world
        self._choose = random.Random(20)
        self._stop = threading.Event()
        self._client = httpx.Client(
            base_url=base_url, headers={"X-API-Key": world.settings.secret("admin_api_key")}, timeout=_REQUEST_SECONDS, trust_env=False
        )
        paces = ((self._write, 1.0), (self._edit, 3.0), (self._delete, 6.0))
        self._threads = [
            threading.Thread(target=self._repeat, args=(action, slower / writes_per_second), name=action.__name__, daemon=True)
            for action, slower in paces
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End once what is under way has been answered."""
        self._stop.set()
        for thread in self._threads:
            thread.join(4 * _REQUEST_SECONDS)
        self._client.close()

    def _repeat(self, action: Callable[[], None], seconds: float) -> None:
        while not self._stop.wait(seconds):
            action()

    def _write(self) -> None:
        """Store one episode, asking again with the same key until it is answered."""
        agent = self._choose.choice(tuple(self.accepted))
        body = {"content": sentence(self._choose), "importance_score": round(self._choose.random(), 2), "agent_id": agent}
        headers = {"Idempotency-Key": uuid4().hex}
        while True:
            try:
                answer = self._client.post("/memory/action", json=body, headers=headers)
            except httpx.HTTPError as error:
                self.failures[type(error).__name__] += 1
            else:
                if answer.status_code in {200, 201}:
                    self.accepted[agent].append(UUID(answer.json()["episode_id"]))
                    self.done["writes"] += 1
                    return
                self.failures[str(answer.status_code)] += 1
            if self._stop.wait(_RETRY_SECONDS):
                return

    def _edit(self) -> None:
        agent, episode_id = self._one()
        if episode_id is None or episode_id in self.touched:
            return
        try:
            edit(self._world.app_database, agent, episode_id, sentence(self._choose))
            self.done["edits"] += 1
        except DatabaseUnavailable:
            self.failures["edit"] += 1

    def _delete(self) -> None:
        agent, episode_id = self._one()
        if episode_id is None or episode_id in self.touched:
            return
        self.touched.add(episode_id)
        try:
            self.done["deletes"] += delete(self._world.app_database, agent, episode_id)
        except DatabaseUnavailable:
            self.failures["delete"] += 1

    def _one(self) -> tuple[str, UUID | None]:
        agent = self._choose.choice(tuple(self.accepted))
        known = self.accepted[agent]
        return agent, self._choose.choice(known) if known else None
