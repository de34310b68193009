"""How the demo looks: tables of at most 100 columns, coloured on a terminal and plain ASCII lines elsewhere."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from app.demo.client import Answer, Hit
from app.demo.story import DemoSearch

WIDTH = 100
SHOWN_HITS = 3

EXPECTED_CHARS = 125
"""An expected result may take two lines, so that the reader sees why it is an answer; others take one."""


@dataclass(frozen=True)
class Outcome:
    """One search and what came of it.

    Attributes:
        expected_ids: episode_ids that answer the search.
    """

    search: DemoSearch
    answer: Answer
    expected_ids: frozenset[str]

    @property
    def found_rank(self) -> int | None:
        """Rank of the best expected episode, from 1; None when none came back."""
        return next((rank for rank, hit in enumerate(self.answer.hits, 1) if hit.episode_id in self.expected_ids), None)


def make_console(stderr: bool = False) -> Console:
    """Return a console for the demo; without a terminal it is as wide as the tables, not the 80 columns that rich assumes."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH)


def _table(console: Console) -> Table:
    style = box.SIMPLE_HEAD if console.is_terminal else None
    return Table(box=style, width=min(console.width, WIDTH) - 2, pad_edge=False, header_style="bold", show_edge=False)


def _print_indented(console: Console, text: Text, indent: int) -> None:
    console.print(Padding(text, (0, 0, 0, indent), expand=False), width=min(console.width, WIDTH))


def print_step(console: Console, number: int, title: str) -> None:
    """Print the heading of one step."""
    console.print()
    console.print(Text(f"{number}. {title}", style="bold cyan"))


def print_fact(console: Console, line: str) -> None:
    """Print one indented line of plain text."""
    _print_indented(console, Text(line), 3)


def _filter_words(search: DemoSearch) -> str:
    """Return the search's filters as one readable phrase, or nothing."""
    words = []
    for name, value in search.filters.items():
        if isinstance(value, list):
            words.append(f"{name} {'+'.join(map(str, value))}")
        elif isinstance(value, dict):
            words.append(", ".join(f"{key}={item}" for key, item in value.items()))
        else:
            words.append(f"{name.removeprefix('occurred_')} {str(value)[:10]}")
    return "; ".join(words)


def _content(hit: Hit, expected: bool) -> Text:
    words = " ".join(hit.content.split())
    if expected:
        return Text(shorten(words, EXPECTED_CHARS, placeholder=" ..."), style="green")
    return Text(words, no_wrap=True, overflow="ellipsis")


def print_outcome(console: Console, label: str, outcome: Outcome) -> None:
    """Print one search: its question, the best results, whether an expected one is among them, and its times."""
    search, answer = outcome.search, outcome.answer
    heading = Text.assemble((label, "dim"), (f'"{search.query}"', "bold"), (f"  {search.agent_id}, {search.mode}", "cyan"))
    filters = _filter_words(search)
    console.print()
    _print_indented(console, heading, 1)
    about = "; ".join(part for part in (search.note, f"filter: {filters}" if filters else "") if part)
    _print_indented(console, Text(about, style="dim"), 1)
    table = _table(console)
    table.add_column("#", justify="right", width=2)
    table.add_column("score", justify="right", width=5)
    table.add_column("when", width=10)
    table.add_column("what came back", ratio=1)
    table.add_column("", width=8)
    found = outcome.found_rank
    for rank, hit in enumerate(answer.hits, 1):
        if rank > SHOWN_HITS and rank != found:
            continue
        expected = hit.episode_id in outcome.expected_ids
        table.add_row(str(rank), f"{hit.score:.2f}", hit.occurred_at[:10], _content(hit, expected), "expected" if expected else "")
    if answer.hits:
        console.print(Padding(table, (0, 0, 0, 1)))
    verdict = (
        Text(f"expected answer at rank {found}", style="green") if found else Text("expected answer is not among the first 5", style="red")
    )
    verdict.append(f"   search {answer.took_ms:.1f} ms, round trip {answer.round_trip_ms:.1f} ms", style="dim")
    _print_indented(console, verdict, 1)


def print_verdicts(console: Console, verdicts: Mapping[str, Sequence[str]]) -> None:
    """Print how the receipts of each agent were judged.

    Args:
        console: Where to print.
        verdicts: By agent, one verdict for each receipt.
    """
    kinds = ["searchable", *sorted({verdict for of_agent in verdicts.values() for verdict in of_agent} - {"searchable"})]
    table = _table(console)
    table.add_column("agent", ratio=1)
    for heading in ("receipts", *kinds):
        table.add_column(heading, justify="right")
    everything = [verdict for of_agent in verdicts.values() for verdict in of_agent]
    for agent_id, of_agent in [*verdicts.items(), ("all", everything)]:
        counts = Counter(of_agent)
        table.add_row(agent_id, str(len(of_agent)), *(str(counts[kind]) for kind in kinds), style="bold" if agent_id == "all" else "")
    console.print(Padding(table, (0, 0, 0, 1)))
