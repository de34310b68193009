"""The demo from end to end against a running service: store, wait, search, verify."""

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from app.demo.client import BATCH_EPISODES, RESULT_LIMIT, DemoClient, Receipt
from app.demo.report import Outcome, print_fact, print_outcome, print_step, print_verdicts
from app.demo.story import DemoSearch, Story, load_story
from app.demo.waiting import STALL_SECONDS, wait_until_searchable

REQUIRED_HITS = 0.8
"""Share of the searches that must bring an expected episode."""

NAMED_PROBLEMS = 5
"""How many bad receipts are named one by one."""


@dataclass(frozen=True)
class Stored:
    """What the service acknowledged.

    Attributes:
        receipts: By the demo's own key of the episode.
        seconds: Time of all the requests together.
    """

    receipts: dict[str, Receipt]
    seconds: float

    def expected_ids(self, search: DemoSearch) -> frozenset[str]:
        """Return the episode_ids that answer a search."""
        return frozenset(str(self.receipts[key]["episode_id"]) for key in search.expects)


@dataclass(frozen=True)
class DemoResult:
    """What a run showed.

    Attributes:
        episodes: How many were acknowledged.
        new: How many of them were not stored by an earlier run.
        searches: How many were asked.
        hits: Of how many an expected episode came back among the first five.
        first: Of how many it came back first.
        median_took_ms: Of a search, as the service says.
        verdicts: Receipts by verdict.
        reasons: Why it failed, a sentence each; empty when it passed.
    """

    episodes: int
    new: int
    searches: int
    hits: int
    first: int
    median_took_ms: float
    verdicts: dict[str, int]
    reasons: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every receipt is searchable, the first read found its episode, and enough searches brought an expected one."""
        return not self.reasons


def _store(client: DemoClient, story: Story) -> Stored:
    receipts: dict[str, Receipt] = {}
    started = time.perf_counter()
    for agent_id, episodes in story.by_agent.items():
        for start in range(0, len(episodes), BATCH_EPISODES):
            batch = episodes[start : start + BATCH_EPISODES]
            answered = client.store(agent_id, batch)
            receipts.update(zip((episode.id for episode in batch), answered, strict=True))
    return Stored(receipts, time.perf_counter() - started)


def _ask(client: DemoClient, search: DemoSearch, stored: Stored) -> Outcome:
    return Outcome(search, client.search(search), stored.expected_ids(search))


def _verify(client: DemoClient, story: Story, stored: Stored) -> dict[str, dict[str, str]]:
    """Return the verdict on each receipt: by agent, then by the demo's key."""
    verdicts = {}
    for agent_id, episodes in story.by_agent.items():
        receipts = [stored.receipts[episode.id] for episode in episodes]
        said = client.verify(agent_id, receipts)
        verdicts[agent_id] = {episode.id: said.get(str(stored.receipts[episode.id]["episode_id"]), "unanswered") for episode in episodes}
    return verdicts


def _failures(first: Outcome, outcomes: Sequence[Outcome], verdicts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return why the demo failed, nothing when it passed."""
    reasons = []
    bad = [f"{key} {verdict}" for of_agent in verdicts.values() for key, verdict in of_agent.items() if verdict != "searchable"]
    if bad:
        more = "" if len(bad) <= NAMED_PROBLEMS else f" and {len(bad) - NAMED_PROBLEMS} more"
        reasons.append(f"receipts that are not searchable: {len(bad)} ({', '.join(bad[:NAMED_PROBLEMS])}{more})")
    if first.found_rank is None:
        reasons.append("the episode just stored was not found by its words")
    hits = sum(outcome.found_rank is not None for outcome in outcomes)
    if hits < REQUIRED_HITS * len(outcomes):
        reasons.append(f"only {hits} of {len(outcomes)} searches brought an expected episode; {REQUIRED_HITS:.0%} must")
    return reasons


def _pending_words(first: Outcome) -> str:
    """Return how far embedding was when the first read was answered."""
    agent_id, pending = first.search.agent_id, first.answer.pending
    if pending:
        return f"{pending} episodes of {agent_id} have no vector yet; a search by words needs none"
    return f"every episode of {agent_id} has its vector already: the workers were faster, or an earlier run stored them"


def _print_stored(console: Console, story: Story, stored: Stored, new_count: int) -> None:
    total = len(story.episodes)
    rate = total / max(stored.seconds, 1e-6)
    print_fact(console, f"{total} episodes acknowledged in {stored.seconds:.2f} s: {rate:,.0f} per second, one receipt each")
    if new_count < total:
        print_fact(
            console, f"{new_count} are new; {total - new_count} were stored by an earlier run and are not stored twice (idempotency keys)"
        )


def _print_summary(console: Console, outcomes: Sequence[Outcome], reasons: Sequence[str]) -> None:
    hits = sum(outcome.found_rank is not None for outcome in outcomes)
    first_ranks = sum(outcome.found_rank == 1 for outcome in outcomes)
    took_ms = statistics.median(outcome.answer.took_ms for outcome in outcomes)
    round_trip_ms = statistics.median(outcome.answer.round_trip_ms for outcome in outcomes)
    console.print()
    print_fact(console, f"{hits} of {len(outcomes)} searches brought an expected episode among {RESULT_LIMIT}, {first_ranks} of them first")
    print_fact(console, f"in the median a search took {took_ms:.1f} ms, {round_trip_ms:.1f} ms with the way there and back")
    console.print()
    if reasons:
        console.print(Text(f"The demo failed: {'; '.join(reasons)}.", style="bold red"))
    else:
        console.print(Text("The demo passed: every episode is stored, searchable and verified.", style="bold green"))


def run_demo(base_url: str, api_key: str, console: Console, stall_seconds: float = STALL_SECONDS) -> DemoResult:
    """Run the demo against a running service and print what happens.

    Args:
        base_url: For example http://127.0.0.1:8002.
        api_key: Key of an administrator.
        console: Where the output goes.
        stall_seconds: How long the embedding queue may stand still.

    Returns:
        What was shown; when it failed, after one printed line that says why.

    Raises:
        DemoError: The service cannot be reached, refuses a request, or makes no progress.
    """
    story = load_story()
    total = len(story.episodes)
    with DemoClient(base_url, api_key) as client:
        print_step(console, 1, f"Store {total} episodes of {len(story.by_agent)} agents, in English and Spanish, over HTTP")
        before, started = client.queue(), time.perf_counter()
        stored = _store(client, story)
        first = _ask(client, story.first_read, stored)
        after = client.queue()
        new_count = max(0, min(total, after.total - before.total))
        _print_stored(console, story, stored, new_count)

        print_step(console, 2, "Read your own writes: ask for words of an episode at once")
        print_fact(console, _pending_words(first))
        print_outcome(console, "", first)

        print_step(console, 3, "Wait for the workers: every episode gets its vector")
        wait_until_searchable(client.queue, total, console, stall_seconds)
        if new_count:
            seconds = time.perf_counter() - started
            print_fact(console, f"all searchable {seconds:.1f} s after the first request: {new_count / seconds:,.0f} per second")

        print_step(console, 4, "Search by meaning, by words, by time and by tag")
        outcomes = []
        for number, search in enumerate(story.searches, 1):
            outcomes.append(_ask(client, search, stored))
            print_outcome(console, f"[{number}/{len(story.searches)}] ", outcomes[-1])

        print_step(console, 5, "Verify: hand every receipt back and ask what became of the episode")
        verdicts = _verify(client, story, stored)
        print_verdicts(console, {agent_id: list(of_agent.values()) for agent_id, of_agent in verdicts.items()})
    reasons = _failures(first, outcomes, verdicts)
    _print_summary(console, outcomes, reasons)
    return DemoResult(
        episodes=total,
        new=new_count,
        searches=len(outcomes),
        hits=sum(outcome.found_rank is not None for outcome in outcomes),
        first=sum(outcome.found_rank == 1 for outcome in outcomes),
        median_took_ms=statistics.median(outcome.answer.took_ms for outcome in outcomes),
        verdicts=dict(Counter(verdict for of_agent in verdicts.values() for verdict in of_agent.values())),
        reasons=reasons,
    )
