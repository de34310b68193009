"""The documents keep their word: their commands are run against a live stack, and what they state is what comes back."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.acceptance.conftest import RunningStack
from tests.acceptance.sessions import Answered, run_session
from tests.factories.documents import Example, difference, examples

README = examples("README.md")
OPERATORS = ("docs/troubleshooting.md", "docs/tuning.md", "docs/deployment.md", "docs/runbooks/alerts.md")


@pytest.fixture(scope="module")
def readme(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Answered]:
    """What each block of README did, by its line."""
    assert shutil.which("curl") and shutil.which("bash"), "the documents' commands need bash and curl: install them"
    answered = run_session(stack.settings, README, tmp_path_factory.mktemp("readme"))
    return {block.line: outcome for block, outcome in zip(README, answered, strict=True)}


@pytest.mark.parametrize("block", README, ids=lambda block: block.name)
def test_block_of_readme_does_what_readme_says(block: Example, readme: dict[int, Answered]) -> None:
    outcome = readme[block.line]
    if block.status is None:
        assert outcome.exit_status == 0, outcome.stderr
        return
    assert outcome.status == block.status, outcome.stdout[:500]
    if block.code is not None:
        problem = json.loads(outcome.stdout)
        assert (problem["code"], problem["status"]) == (block.code, block.status)
    if block.answer is not None:
        assert difference(block.answer, json.loads(outcome.stdout)) is None


def test_every_route_of_the_api_stands_in_readme_with_a_request() -> None:
    shown = "\n".join(block.commands for block in README)
    routes = (
        "/memory/action",
        "/memory/actions",
        "/memory/search",
        "/memory/episodic/recent",
        "/memory/episodic/$ID",
        "/stats",
        "/metrics",
    )
    more = ("/health", "/health/live", "/health/ready", "/integrity", "/integrity/verify")
    queue = ("/queue", "/queue/dead", "/queue/dead/rows", "/queue/dead/replay")
    assert [route for route in (*routes, *more, *queue) if not re.search(rf"\$URL{re.escape(route)}[\"?]", shown)] == []


def test_meaning_is_found_without_a_common_word(readme: dict[int, Answered]) -> None:
    (by_vector,) = (block for block in README if '"mode": "vector"' in block.commands)
    (hit,) = json.loads(readme[by_vector.line].stdout)["results"]
    assert "nightly backup" in hit["content"]


@pytest.mark.parametrize("document", OPERATORS)
def test_commands_for_operators_end_as_their_page_says(document: str, stack: RunningStack, tmp_path: Path) -> None:
    blocks = examples(document)
    assert shutil.which("curl") and shutil.which("bash"), "the documents' commands need bash and curl: install them"
    assert len(blocks) >= 6
    for block, outcome in zip(blocks, run_session(stack.settings, blocks, tmp_path), strict=True):
        if block.status is not None:
            assert outcome.status == block.status, (block.name, outcome)
        else:
            assert outcome.exit_status == (block.exit_status or 0), (block.name, outcome)
