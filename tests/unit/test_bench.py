"""The pure parts of the benchmark: percentiles and ratios, the texts, the written report."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from bench import ablation
from bench.figures import Figure, over_rounds, percentile, ratios, times
from bench.page import main as write_page
from bench.report import LIMITS, TITLES, Run, from_json, to_json, to_markdown, to_table
from bench.texts import long_texts, questions, short_texts


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 3.0, 2.0, 1.0], 0.5, 2.0),
        (list(range(1, 201)), 0.99, 198),
        ([1.0, 2.0], 1.0, 2.0),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_percentile_that_cannot_be_had_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile(values, share)


def test_rounds_are_summed_up_by_their_median_and_kept() -> None:
    figure = over_rounds("stored", [100.0, 300.0, 250.0], "episodes/s", target=200.0)
    assert (figure.value, figure.samples, figure.met) == (250.0, (100.0, 300.0, 250.0), True)


def test_ratio_is_taken_round_by_round() -> None:
    # The second round ran on a machine half as fast: the ratio does not see it, a ratio of medians over other rounds would.
    figure = ratios("to the loop", [300.0, 150.0], [200.0, 100.0], 0.8)
    assert figure.samples == (1.5, 1.5)
    assert figure.met is True


def test_ratio_of_unequal_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios("to the loop", [1.0], [1.0, 2.0])


def test_times_are_milliseconds_that_should_stay_below_their_target() -> None:
    middle, last = times("found", [0.04] * 98 + [0.6] * 2, (80.0, 500.0))
    assert [middle.value, last.value] == pytest.approx([40.0, 600.0])
    assert [(middle.name, middle.met), (last.name, last.met)] == [("found, p50", True), ("found, p99", False)]


def test_figure_without_target_has_no_verdict() -> None:
    assert Figure("for information", 1.0, "ms").met is None


def test_made_texts_are_distinct_and_the_same_each_time() -> None:
    made = short_texts(None, 2000)
    assert len(set(made)) == 2000
    assert made == short_texts(None, 2000)
    assert 40 < sum(map(len, made)) / len(made) < 75


def test_long_texts_are_joined_until_they_are_long_enough() -> None:
    short = short_texts(None, 500)
    long = long_texts(short, 200)
    assert len(set(long)) == 200
    assert all(250 <= len(text) <= 250 + max(map(len, short)) for text in long)


def test_questions_are_new_distinct_and_made_of_what_is_stored() -> None:
    stored = short_texts(None, 50)
    asked = questions(stored, 300)
    assert len(set(asked)) == 300
    assert asked == questions(stored, 300)
    known = {word for text in stored for word in text.split()}
    assert all(set(question.split()) <= known for question in asked)
    assert not set(asked).intersection(stored)


def test_cases_are_read_by_conversation_and_unanswerable_questions_are_left_out(tmp_path: Path) -> None:
    episodes = [{"conversation": "c", "id": "1", "content": "one"}, {"conversation": "d", "id": "2", "content": "two"}]
    asked = [{"conversation": "c", "text": f"q{n}", "category": n, "gold": ["1"]} for n in (1, 5)]
    for name, rows in (("episodes", episodes), ("questions", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cases = ablation.read(tmp_path, ("5",))
    assert (cases.name, sorted(cases.episodes)) == (tmp_path.name, ["c", "d"])
    assert [(each.text, each.gold) for each in cases.questions] == [("q1", frozenset({"1"}))]


def test_recall_counts_each_found_episode_once_among_the_first_ten() -> None:
    found = ["a", "a", *"bcdefghij", "k"]
    assert ablation.recall(found, frozenset({"a", "j", "k"})) == pytest.approx(2 / 3)


def test_bootstrap_holds_what_is_sure_and_doubts_what_is_not() -> None:
    sure, unsure = np.full(200, 0.1), np.random.default_rng(1).normal(0.0, 0.5, 200)
    assert ablation.interval([sure, sure]) == pytest.approx((0.1, 0.1))
    low, high = ablation.interval([unsure])
    assert low < 0 < high
    assert 0.08 < high - low < 0.2, "about four standard errors"


@pytest.mark.parametrize("name", ["texts.jsonl", "texts.jsonl.gz"])
def test_texts_are_read_from_a_file_without_repetition(tmp_path: Path, name: str) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in ("one", "two", "one", "tres ñandúes"))
    file = tmp_path / name
    file.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    assert short_texts(file, 3) == ["one", "two", "tres ñandúes"]


def test_file_with_too_few_texts_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "one"}\n')
    with pytest.raises(click.ClickException, match="1 distinct texts; 2 are needed"):
        short_texts(file, 2)


@pytest.mark.parametrize("line", ['{"words": "one"}', "not json", '"text"'])
def test_file_of_another_form_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "one"}\n' + line + "\n")
    with pytest.raises(click.ClickException, match=r"texts\.jsonl:2"):
        short_texts(file, 2)


def test_every_part_says_what_limits_it() -> None:
    assert LIMITS.keys() == TITLES.keys()


@pytest.fixture
def run() -> Run:
    figures = {
        "drain": [ratios("ratio to the loop", [1.0, 1.2], [1.0, 1.0], 0.8)],
        "latency": [Figure("found, p50", 91.25, "ms", 80.0, "smaller", (), "200 samples")],
    }
    machine = {
        "processor": "AMD EPYC, 2 cores",
        "memory": "23 GiB",
        "system": "Linux 6.1",
        "python": "3.11.7",
        "torch": "2.0",
        "commit": "abc1234",
    }
    return Run("2026-01-31T12:00:00+00:00", "python -m bench", 90.0, machine, {"drain": 0.5, "latency": 1.25}, figures)


def test_json_holds_every_sample_unit_and_verdict(run: Run) -> None:
    written = json.loads(json.dumps(to_json(run)))
    assert written["command"] == "python -m bench"
    assert written["machine"]["processor"] == "AMD EPYC, 2 cores"
    drain, latency = written["figures"]["drain"][0], written["figures"]["latency"][0]
    assert (drain["value"], drain["unit"], drain["samples"], drain["met"]) == (pytest.approx(1.1), "ratio", [1.0, 1.2], True)
    assert (latency["value"], latency["unit"], latency["met"]) == (91.25, "ms", False)


def test_page_names_machine_commit_command_targets_and_limits(run: Run) -> None:
    page = to_markdown([run])
    for expected in (
        "AMD EPYC, 2 cores",
        "commit abc1234",
        "`python -m bench`",
        "2026-01-31",
        "torch 2.0",
        "before it 0.5",
        "before it 1.2",
    ):
        assert expected in page
    assert "| ratio to the loop | 1.10 | >= 0.8, met | 1.00, 1.20 |  |" in page
    assert "| found, p50 | 91.2 ms | < 80, missed |  | 200 samples |" in page
    assert page.count("**What limits it.**") == 2


def test_json_can_be_read_again(run: Run) -> None:
    assert from_json(json.loads(json.dumps(to_json(run)))) == replace(run, seconds=90.0)


def test_page_is_written_of_the_latest_run_of_each_part(run: Run, tmp_path: Path) -> None:
    later = replace(run, command="python -m bench latency", figures={"latency": [Figure("found, p50", 47.0, "ms", 80.0, "smaller")]})
    files = []
    for number, each in enumerate((run, later)):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(to_json(each)))
    done = CliRunner().invoke(write_page, [str(tmp_path / "page.md"), *map(str, files)])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "page.md").read_text()
    assert "| found, p50 | 47.0 ms | < 80, met |" in page
    assert "91.2 ms" not in page
    assert "ratio to the loop" in page
    assert CliRunner().invoke(write_page, [str(tmp_path / "page.md"), str(tmp_path / "page.md")]).exit_code == 1


def test_chart_draws_every_figure_of_a_unit(run: Run) -> None:
    three = [Figure(f"search {n}", float(n), "ms") for n in (1, 2, 30)]
    page = to_markdown([replace(run, figures={"latency": three})])
    assert "bar [1, 2, 30]" in page
    assert "3. search 30: 30.0 ms" in page
    assert "```mermaid" not in to_markdown([run]), "a chart of one bar says nothing"


def test_table_shows_a_row_per_figure(run: Run) -> None:
    console = Console(record=True, width=160)
    console.print(to_table(run.figures))
    shown = console.export_text()
    assert "drain: ratio to the loop" in shown
    assert "latency: found, p50" in shown
