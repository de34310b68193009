"""What each ingredient of the ranking is worth, on questions whose answers are known.

`python -m bench.ablation DIR...`: each folder holds episodes.jsonl (`conversation`, `id`, `content`, and where known `text` without its
speaker, `speaker`, `session`, `timestamp`) and questions.jsonl (`conversation`, `text`, `category`, and `gold`, the ids of the episodes
that answer).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from app.bootstrap import build_services
from app.errors import NexusError
from app.search.fusion import WEIGHTS, Weights
from app.search.query import SearchMode, SearchQuery
from app.search.service import SearchService
from bench.client import Client
from bench.own_stack import OwnStack, running_stack

FIRST = 10
DRAWS = 2_000
_RRF_K = 60
"""Of reciprocal rank fusion, as in Cormack, Clarke and Buettcher (2009)."""
_DEEP = 50
_A_POST = 500
_SILENT = "-without-actor"

_WITHOUT: Mapping[str, Weights] = {
    "without the words": replace(WEIGHTS, lexical=0.0),
    "words that do not weigh less when few are met": replace(WEIGHTS, coverage_power=0.0),
    "without the turn before": replace(WEIGHTS, previous=0.0),
    "without the neighbours": replace(WEIGHTS, neighbour=0.0),
    "without the speaker": replace(WEIGHTS, speaker=0.0),
    "without the session": replace(WEIGHTS, session=0.0),
    "without the time": replace(WEIGHTS, period=0.0),
    "without any of the conversation": replace(WEIGHTS, previous=0.0, neighbour=0.0, speaker=0.0, session=0.0, period=0.0),
}
_TS_RANK = """
    SELECT e.episode_id::text FROM nexus_memory.zep_episodic_memory e,
           (SELECT string_agg(DISTINCT '''' || replace(replace(f, '\\', '\\\\'), '''', '''''') || '''', ' | ')::tsquery AS words
            FROM nexus_memory.query_words(%s) q, unnest(q.forms) f) w
    WHERE e.agent_id = %s AND e.search_vector @@ w.words ORDER BY ts_rank(e.search_vector, w.words) DESC, e.seq LIMIT %s
"""

Ids = list[str]


@dataclass(frozen=True)
class Question:
    """One question and the episodes that answer it, by the set's own ids."""

    conversation: str
    text: str
    gold: frozenset[str]


@dataclass(frozen=True)
class Cases:
    """One folder."""

    name: str
    episodes: Mapping[str, list[dict[str, Any]]]
    questions: Sequence[Question]


def read(folder: Path, skipped: Sequence[str]) -> Cases:
    """Return a folder's cases, without the questions of the categories that are skipped."""
    episodes: dict[str, list[dict[str, Any]]] = {}
    for line in (folder / "episodes.jsonl").read_text(encoding="utf-8").splitlines():
        episode = json.loads(line)
        episodes.setdefault(episode["conversation"], []).append(episode)
    questions = map(json.loads, (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    asked = [Question(q["conversation"], q["text"], frozenset(q["gold"])) for q in questions if str(q["category"]) not in skipped]
    return Cases(folder.resolve().name, episodes, asked)


class Contest:
    """Stores the cases and asks them in every way.

    Args:
        stack: Idle; nothing of it is removed.
        cases: Conversations' names may not repeat between them.
    """

    def __init__(self, stack: OwnStack, cases: Sequence[Cases]) -> None:
        self._stack = stack
        self._ids: dict[str, str] = {}
        for each in cases:
            for conversation, episodes in each.episodes.items():
                self._store(conversation, episodes, has_actor=True)
                self._store(conversation + _SILENT, episodes, has_actor=False)
        stack.wait_until_searchable()
        services = build_services(stack.settings)
        self._database, self._encoder = services.database, services.search._encoder
        self._encoder.models(patience_seconds=120)
        self._cursor = stack.connect().cursor()

    def ways(self) -> dict[str, Callable[[Question], Ids]]:
        """Return every way to answer, by name; the first is the service's own, of the others each lacks something."""
        vector, words = self._by("vector"), self._by("keyword")
        return {
            "everything": self._by("hybrid"),
            **{name: self._by("hybrid", weights) for name, weights in _WITHOUT.items()},
            "meaning alone": vector,
            "meaning alone, without the actor in the text": lambda q: vector(replace(q, conversation=q.conversation + _SILENT)),
            "words alone, by BM25": words,
            "words alone, by ts_rank": self._by_ts_rank,
            "meaning and words by rank alone (RRF)": lambda q: _by_rank([vector(q), words(q)]),
        }

    def _by(self, mode: SearchMode, weights: Weights = WEIGHTS) -> Callable[[Question], Ids]:
        search = SearchService(self._database, self._encoder, weights=weights)

        def ask(question: Question) -> Ids:
            hits = search.search(question.conversation, SearchQuery(question.text, _DEEP, mode)).results
            return [self._ids[hit.id] for hit in hits]

        return ask

    def _by_ts_rank(self, question: Question) -> Ids:
        self._cursor.execute(_TS_RANK, (question.text, question.conversation, _DEEP))
        return [self._ids[row[0]] for row in self._cursor.fetchall()]

    def _store(self, agent_id: str, episodes: Sequence[dict[str, Any]], *, has_actor: bool) -> None:
        with Client(self._stack.url, self._stack.headers | {"X-Agent-Id": agent_id}) as client:
            for start in range(0, len(episodes), _A_POST):
                some = episodes[start : start + _A_POST]
                receipts = client.post("/memory/actions", {"items": [_item(each, has_actor=has_actor) for each in some]})["items"]
                self._ids |= {receipt["episode_id"]: each["id"] for receipt, each in zip(receipts, some, strict=True)}


def _item(episode: Mapping[str, Any], *, has_actor: bool) -> dict[str, Any]:
    speaker, caption, moment = episode.get("speaker"), episode.get("caption"), episode.get("timestamp")
    content = episode.get("text") or episode["content"]
    item = {"content": f"{content} [shared photo: {caption}]" if caption else content, "session_id": str(episode.get("session", "0"))}
    if speaker and has_actor:
        item["actor"] = speaker
    if moment:
        item["occurred_at"] = moment if moment.endswith("Z") else f"{moment}Z" if "T" in moment else f"{moment}T00:00:00Z"
    return item


def _by_rank(lists: Sequence[Ids]) -> Ids:
    scores: dict[str, float] = {}
    for ids in lists:
        for rank, each in enumerate(ids, 1):
            scores[each] = scores.get(each, 0.0) + 1 / (_RRF_K + rank)
    return sorted(scores, key=lambda each: -scores[each])


def recall(found: Ids, gold: frozenset[str]) -> float:
    """Return the share of the gold among the first FIRST that were found."""
    return len(gold.intersection(list(dict.fromkeys(found))[:FIRST])) / len(gold)


def interval(differences: Sequence[NDArray[np.float64]], draws: int = DRAWS) -> tuple[float, float]:
    """Return the bounds in which 95 % of a paired bootstrap's macro means lie.

    Args:
        differences: Of each set, one difference per question; each set is drawn from by itself, and counts the same.
        draws: How many samples are drawn.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), on percentile intervals.
    """
    chance = np.random.default_rng(7)
    means = [each[chance.integers(0, len(each), (draws, len(each)))].mean(axis=1) for each in differences]
    low, high = np.percentile(np.mean(means, axis=0), [2.5, 97.5])
    return float(low), float(high)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--skip", multiple=True, help="A category of questions without an answer, left out; may be repeated.")
@click.option("--model", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A model's folder; the shipped one if absent.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write every question's recall there.")
def main(folders: Sequence[Path], skip: Sequence[str], model: Path | None, json_file: Path | None) -> None:
    """Rank the same candidates with and without each ingredient, and say by how much the answers differ."""
    console = Console(stderr=True, highlight=False)
    cases = [read(folder, skip) for folder in folders]
    try:
        with running_stack(lambda line: console.print(f"[dim]{line}[/dim]")) as stack:
            if model is not None:
                stack.change_model(model)
            found: dict[str, list[NDArray[np.float64]]] = {}
            for name, ask in Contest(stack, cases).ways().items():
                found[name] = [np.array([recall(ask(question), question.gold) for question in each.questions]) for each in cases]
                console.print(f"  {name}: {np.mean([each.mean() for each in found[name]]):.3f}")
    except NexusError as error:
        raise click.ClickException(error.message) from error
    Console().print(_table(cases, found))
    if json_file is not None:
        json_file.write_text(
            json.dumps({name: [each.tolist() for each in of_sets] for name, of_sets in found.items()}) + "\n", encoding="utf-8"
        )


def _table(cases: Sequence[Cases], found: Mapping[str, Sequence[NDArray[np.float64]]]) -> Table:
    table = Table("R@10", *(f"{each.name} ({len(each.questions)})" for each in cases), "macro", "everything less this", "95 % of draws")
    whole = found["everything"]
    for name, of_sets in found.items():
        differences = [ours - theirs for ours, theirs in zip(whole, of_sets, strict=True)]
        means = [float(each.mean()) for each in of_sets]
        low, high = interval(differences)
        lost = float(np.mean([each.mean() for each in differences]))
        last = ("", "") if of_sets is whole else (f"{lost:+.3f}", f"{low:+.3f} to {high:+.3f}")
        table.add_row(name, *(f"{mean:.3f}" for mean in means), f"{np.mean(means):.3f}", *last)
    return table


if __name__ == "__main__":
    main()
