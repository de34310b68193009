"""The demo's data: the log of five working agents, and searches whose right answers are known."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from typing import Any, Literal

from app.errors import NexusError

Mode = Literal["hybrid", "vector", "keyword"]


class DemoError(NexusError):
    """The demo cannot go on; the message is the one line that its reader needs."""

    code = "demo_failed"


@dataclass(frozen=True)
class DemoEpisode:
    """One line of an agent's log.

    Attributes:
        id: Short key that searches and questions refer to, for example "ops-017".
        occurred_at: ISO 8601 with zone.
        importance_score: 0 to 1.
        language: "en" or "es".
    """

    id: str
    agent_id: str
    session_id: str
    actor: str
    action_type: str
    content: str
    occurred_at: str
    importance_score: float
    tags: list[str]
    metadata: dict[str, Any]
    language: str

    def request_item(self) -> dict[str, Any]:
        """Return the item of POST /memory/actions that stores this episode.

        The idempotency key holds a digest of the item, so that a repeated run is a replay, and a
        later edition of a line is a new episode instead of a conflict.
        """
        item = {
            "action_type": self.action_type,
            "content": self.content,
            "session_id": self.session_id,
            "actor": self.actor,
            "tags": self.tags,
            "importance_score": self.importance_score,
            "occurred_at": self.occurred_at,
            "metadata": self.metadata,
            "language": self.language,
        }
        digest = hashlib.sha256(json.dumps(item, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        return {**item, "idempotency_key": f"demo-{self.id}-{digest[:16]}"}


@dataclass(frozen=True)
class DemoSearch:
    """A query with known answers.

    Attributes:
        expects: Keys of the episodes that answer it; one of them among the results is enough.
        filters: As POST /memory/search takes them.
        note: What the search shows, in a few words.
        before_embedding: It is the one that is asked at once after the write.
    """

    agent_id: str
    query: str
    expects: list[str]
    mode: Mode = "hybrid"
    filters: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    before_embedding: bool = False


@dataclass(frozen=True)
class Story:
    """All of the demo's data.

    Attributes:
        episodes: In the order in which they are stored: agent by agent, each by time within a session.
        searches: In the order in which they are shown, without the first read.
        first_read: The keyword search that must work before its episode has a vector.
    """

    episodes: list[DemoEpisode]
    searches: list[DemoSearch]
    first_read: DemoSearch

    @cached_property
    def by_agent(self) -> dict[str, list[DemoEpisode]]:
        """Episodes of each agent, in order; the agent of the first read comes last, so that its words are the newest."""
        groups: dict[str, list[DemoEpisode]] = {}
        for episode in self.episodes:
            groups.setdefault(episode.agent_id, []).append(episode)
        groups[self.first_read.agent_id] = groups.pop(self.first_read.agent_id, [])
        return groups


def _lines(name: str) -> Iterator[dict[str, Any]]:
    text = files("app.demo").joinpath(name).read_text(encoding="utf-8")
    for line in text.splitlines():
        yield json.loads(line)


def load_questions() -> list[DemoSearch]:
    """Return the Spanish questions about the Spanish episodes, for measuring; the demo does not ask them."""
    return [DemoSearch(**line) for line in _lines("questions_es.jsonl")]


def load_story() -> Story:
    """Return the shipped episodes and searches.

    Raises:
        DemoError: A data file is missing or damaged.
    """
    try:
        episodes = [DemoEpisode(**line) for line in _lines("episodes.jsonl")]
        searches = [DemoSearch(**line) for line in _lines("searches.jsonl")]
        first_read = next(search for search in searches if search.before_embedding)
    except (OSError, ValueError, TypeError, StopIteration) as error:
        raise DemoError(f"the demo's data files are missing or damaged ({type(error).__name__}); get a fresh copy of app/demo") from error
    return Story(episodes, [search for search in searches if not search.before_embedding], first_read)
