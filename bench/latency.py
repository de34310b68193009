"""How soon a lone post is found by meaning on an idle stack, and how long a search takes."""

import time
from collections.abc import Callable, Sequence

from app.demo.story import load_story
from app.errors import StackError
from bench.client import Client, ask_at_once
from bench.figures import Figure, times
from bench.own_stack import OwnStack

POSTS = 200
TARGET_P50_MS = 80.0
TARGET_P99_MS = 500.0
_SEARCHES = 200
_CLIENTS = 10
_POST_EPISODES = 500
_GIVE_UP_SECONDS = 30.0

Report = Callable[[str], None]


def measure(stack: OwnStack, texts: Sequence[str], report: Report) -> list[Figure]:
    """Return the figures of one post after the other, and of searches over a small and a larger memory.

    Args:
        stack: Idle.
        texts: At least 5,000, distinct.
        report: Is told of each result.
    """
    stack.empty()
    figures: list[Figure] = []
    story = [episode.content for episodes in load_story().by_agent.values() for episode in episodes]
    _store(stack, story)
    figures += _searches(stack, f"search over {len(story)} episodes", texts, report)
    figures += _posts(stack, texts[-POSTS:], report)
    _store(stack, texts[: 5000 - len(story) - POSTS])
    figures += _searches(stack, "search over 5,000 episodes", texts[::-1], report)
    return figures


def _store(stack: OwnStack, texts: Sequence[str]) -> None:
    with Client(stack.url, stack.headers) as client:
        for start in range(0, len(texts), _POST_EPISODES):
            client.store_many(texts[start : start + _POST_EPISODES])
    stack.wait_until_searchable()


def _posts(stack: OwnStack, texts: Sequence[str], report: Report) -> list[Figure]:
    name = f"POST until found by vector, {len(texts)} one at a time"
    with Client(stack.url, stack.headers) as writer, Client(stack.url, stack.headers) as reader:
        seconds = [_until_found(writer, reader, text) for text in texts]
    figures = times(name, seconds, (TARGET_P50_MS, TARGET_P99_MS))
    report(f"{name}: " + ", ".join(f"{figure.value:.1f} ms" for figure in figures))
    return figures


def _until_found(writer: Client, reader: Client, text: str) -> float:
    started = time.perf_counter()
    episode_id = writer.store(text)
    while time.perf_counter() - started < _GIVE_UP_SECONDS:
        if episode_id in reader.search(text, "vector"):
            return time.perf_counter() - started
    raise StackError(f"an episode was not found by its vector within {_GIVE_UP_SECONDS:.0f} s")


def _searches(stack: OwnStack, name: str, queries: Sequence[str], report: Report) -> list[Figure]:
    """Return the figures of hybrid searches, every query a new one, by one client and by several at once."""
    figures: list[Figure] = []
    for clients, offset in ((1, 0), (_CLIENTS, _SEARCHES)):
        mine = queries[offset : offset + _SEARCHES]
        figures += times(
            f"{name}, {clients} client{'s' if clients > 1 else ''}", ask_at_once(stack.url, stack.headers, mine, clients, _search)
        )
        report(", ".join(f"{figure.name} {figure.value:.1f} ms" for figure in figures[-2:]))
    return figures


def _search(client: Client, query: str) -> None:
    client.search(query, "hybrid")
