"""The demo's data is sound, and its run tells a good service from a bad one."""

import io
import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from app.cli.main import main
from app.demo.client import DemoClient, QueueCounts
from app.demo.run import run_demo
from app.demo.story import DemoError, DemoSearch, load_questions, load_story
from app.demo.waiting import wait_until_searchable

STORY = load_story()
EPISODES = {episode.id: episode for episode in STORY.episodes}
ALL_SEARCHES = [STORY.first_read, *STORY.searches]
STATES = ("pending", "processing", "done", "dead")


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


@dataclass
class FakeService:
    """A service in memory: enough of the contract for the demo, and a few ways to be bad.

    Attributes:
        polls_to_embed: How many looks at the queue it takes until nothing is pending.
        answers: Searches it answers; the others come back empty.
        verdicts: Verdicts other than searchable, by content.
        refuse: Status with which every search is refused; 0 for none.
    """

    polls_to_embed: int = 3
    answers: set[str] = field(default_factory=lambda: {search.query for search in ALL_SEARCHES})
    verdicts: dict[str, str] = field(default_factory=dict)
    refuse: int = 0
    by_key: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    content_of: dict[str, str] = field(default_factory=dict)
    batch_sizes: list[int] = field(default_factory=list)
    verified: int = 0
    url: str = ""

    def handle(self, path: str, agent_id: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and answer of one request."""
        if path == "/stats":
            return 200, {"embeddings_queue": self._queue()}
        if path == "/memory/actions":
            self.batch_sizes.append(len(body["items"]))
            return 201, {"items": [self._accept(agent_id, item) for item in body["items"]]}
        if path == "/memory/search":
            if self.refuse:
                return self.refuse, {"code": "invalid_request", "title": "Bad", "detail": "filters: unknown field", "status": self.refuse}
            return 200, {"results": self._results(agent_id, body), "pending_embeddings": 7, "took_ms": 1.5}
        lines = [
            {"episode_id": r["episode_id"], "verdict": self.verdicts.get(self.content_of[r["episode_id"]], "searchable")}
            for r in body["receipts"]
        ]
        self.verified += len(lines)
        return 200, {"verdicts": lines, "summary": dict(Counter(line["verdict"] for line in lines))}

    def _queue(self) -> dict[str, int]:
        total = len(self.by_key)
        if total:
            self.polls_to_embed -= 1
        pending = total // 2 if self.polls_to_embed > 0 else 0
        return {"pending": pending, "processing": 0, "done": total - pending, "dead": 0}

    def _accept(self, agent_id: str, item: dict[str, Any]) -> dict[str, Any]:
        number = len(self.by_key) + 1
        new = {"episode_id": f"e-{number}", "seq": number, "version": 1, "content_sha256": "00", "nonce": "11", "agent_id": agent_id}
        receipt = self.by_key.setdefault((agent_id, item["idempotency_key"]), new)
        self.content_of[receipt["episode_id"]] = item["content"]
        return receipt

    def _results(self, agent_id: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        if body["query"] not in self.answers:
            return []
        search = next(search for search in ALL_SEARCHES if search.query == body["query"])
        assert (search.agent_id, search.mode, search.filters) == (agent_id, body["mode"], body.get("filters", {}))
        wanted = EPISODES[search.expects[0]].content
        episode_id = next(key for key, content in self.content_of.items() if content == wanted)
        return [{"episode_id": episode_id, "score": 0.91, "content": wanted, "occurred_at": "2026-05-01T00:00:00Z"}]


class _Handler(BaseHTTPRequestHandler):
    service: ClassVar[FakeService]

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.headers["Authorization"] != "Bearer good-key":
            status, answer = 401, {"code": "unauthenticated", "detail": "this key is unknown"}
        else:
            status, answer = self.service.handle(self.path, self.headers.get("X-Agent-Id", ""), body)
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = _answer
    do_POST = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A fake service that listens on a free port."""
    fake = FakeService()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": fake}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


def _run(service: FakeService, terminal: bool = False) -> tuple[bool, str]:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=terminal)
    return run_demo(service.url, "good-key", console).passed, out.getvalue()


def test_episodes_are_many_unique_and_distinct() -> None:
    assert len(STORY.episodes) >= 320
    assert len(EPISODES) == len(STORY.episodes)
    assert len({" ".join(sorted(_words(episode.content))) for episode in STORY.episodes}) == len(STORY.episodes)
    assert sum(episode.language == "es" for episode in STORY.episodes) >= 130
    assert {episode.language for episode in STORY.episodes} == {"en", "es"}
    assert len(STORY.by_agent) == 5


def test_each_episode_fits_the_service() -> None:
    for episode in STORY.episodes:
        at = datetime.fromisoformat(episode.occurred_at)
        assert at.year == 2026 and at.tzinfo is not None, episode.id
        assert 0 <= episode.importance_score <= 1, episode.id
        assert episode.content.strip() and episode.tags and episode.actor, episode.id
        assert re.fullmatch(r"[A-Za-z0-9._@-]{1,128}", episode.agent_id), episode.id
    assert len({episode.occurred_at[:7] for episode in STORY.episodes}) >= 9


def test_each_agent_has_several_sessions_and_actors() -> None:
    for episodes in STORY.by_agent.values():
        assert len({episode.session_id for episode in episodes}) >= 5
        assert len({episode.actor for episode in episodes}) >= 4
        assert len({episode.action_type for episode in episodes}) >= 4


@pytest.mark.parametrize("search", [*ALL_SEARCHES, *load_questions()], ids=lambda search: search.query)
def test_expected_episodes_exist_and_pass_the_filters(search: DemoSearch) -> None:
    assert search.expects
    for key in search.expects:
        episode, filters = EPISODES[key], search.filters
        assert episode.agent_id == search.agent_id
        assert set(filters.get("tags_all", [])) <= set(episode.tags)
        assert not filters.get("tags_any") or set(filters["tags_any"]) & set(episode.tags)
        assert filters.get("occurred_after", "") <= episode.occurred_at < filters.get("occurred_before", "9")
        assert filters.get("metadata", {}).items() <= episode.metadata.items()


def test_searches_said_to_share_no_keyword_share_none() -> None:
    claimed = [search for search in STORY.searches if "shares no keyword" in search.note]
    assert len(claimed) >= 3
    for search in claimed:
        for key in search.expects:
            assert not _words(search.query) & _words(EPISODES[key].content), (search.query, key)


def test_questions_are_many_distinct_and_about_spanish_episodes() -> None:
    questions = load_questions()
    assert len({question.query for question in questions}) == len(questions) >= 60
    assert all(EPISODES[key].language == "es" for question in questions for key in question.expects)


def test_only_the_first_read_comes_before_embedding_and_by_words() -> None:
    assert STORY.first_read.mode == "keyword"
    assert not any(search.before_embedding for search in STORY.searches)
    assert len(STORY.searches) >= 14
    assert list(STORY.by_agent)[-1] == STORY.first_read.agent_id


def test_a_changed_line_gets_another_idempotency_key() -> None:
    episode = STORY.episodes[0]
    changed = type(episode)(**{**vars(episode), "content": "Something else."})
    assert episode.request_item() == episode.request_item()
    assert changed.request_item()["idempotency_key"] != episode.request_item()["idempotency_key"]


def test_a_damaged_data_file_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_text("{broken\n")
    monkeypatch.setattr("app.demo.story.files", lambda _: tmp_path)
    with pytest.raises(DemoError, match="damaged"):
        load_story()


def test_a_good_service_passes_and_the_output_is_plain(service: FakeService) -> None:
    passed, out = _run(service)
    assert passed, out
    assert f"{len(EPISODES)} episodes acknowledged" in out
    assert "7 episodes of demo-home have no vector yet" in out
    assert f"{len(STORY.searches)} of {len(STORY.searches)} searches" in out
    assert "The demo passed" in out
    assert max(service.batch_sizes) <= 100
    assert service.verified == len(EPISODES)
    assert "\x1b" not in out
    assert not re.search("[\u2500-\u259f]", out)
    assert max(map(len, out.splitlines())) <= 100


def test_a_terminal_gets_colours_within_its_width(service: FakeService) -> None:
    passed, out = _run(service, terminal=True)
    assert passed
    assert "\x1b[" in out
    assert max(len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) for line in re.split(r"[\r\n]", out)) <= 100


def test_a_second_run_stores_nothing_twice_and_says_so(service: FakeService) -> None:
    assert _run(service)[0]
    passed, out = _run(service)
    assert passed
    assert len(service.by_key) == len(EPISODES)
    assert f"0 are new; {len(EPISODES)} were stored by an earlier run" in out


def test_a_dead_receipt_fails_the_demo_by_name(service: FakeService) -> None:
    service.verdicts = {EPISODES["ops-017"].content: "dead"}
    passed, out = _run(service)
    assert not passed
    assert "receipts that are not searchable: 1 (ops-017 dead)" in out


@pytest.mark.parametrize(("silent", "passes"), [(3, True), (4, False)])
def test_too_few_found_searches_fail_the_demo(service: FakeService, silent: int, passes: bool) -> None:
    for search in STORY.searches[:silent]:
        service.answers.discard(search.query)
    passed, out = _run(service)
    assert passed is passes
    assert ("searches brought an expected episode; 80% must" in " ".join(out.split())) is not passes


def test_a_write_that_cannot_be_read_at_once_fails_the_demo(service: FakeService) -> None:
    service.answers.discard(STORY.first_read.query)
    passed, out = _run(service)
    assert not passed
    assert "just stored was not found by its words" in out


def test_a_refused_request_tells_code_and_reason(service: FakeService) -> None:
    service.refuse = 422
    with pytest.raises(DemoError, match="POST /memory/search answered 422 invalid_request: filters: unknown field"):
        _run(service)


def test_more_than_a_thousand_receipts_are_verified_in_parts(service: FakeService) -> None:
    service.content_of = {f"e-{number}": "text" for number in range(2345)}
    with DemoClient(service.url, "good-key") as client:
        verdicts = client.verify("demo-ops", [{"episode_id": key} for key in service.content_of])
    assert len(verdicts) == service.verified == 2345


@dataclass(frozen=True)
class Ended:
    exit_code: int
    output: str


class Command:
    """`python -m app demo ...` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        self._monkeypatch.setattr(sys, "argv", ["app", "demo", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        written = self._capsys.readouterr()
        return Ended(int(ended.value.code or 0), written.out + written.err)


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:9", "no-scheme", "http://[bad", "ftp://127.0.0.1:9"])
def test_an_unusable_address_is_one_clear_line(base_url: str, demo: Command, tmp_path: Path) -> None:
    key = tmp_path / "key.txt"
    key.write_text("good-key\n")
    result = demo("--base-url", base_url, "--api-key-file", str(key))
    assert result.exit_code == 1
    assert "error: " in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", "clé".encode()])
def test_an_unusable_key_file_is_one_clear_line(content: bytes | None, service: FakeService, demo: Command, tmp_path: Path) -> None:
    key = tmp_path / "key.txt"
    if content is not None:
        key.write_bytes(content)
    result = demo("--base-url", service.url, "--api-key-file", str(key))
    assert result.exit_code == 1
    assert re.search("error: .*key", result.output)


def test_the_command_ends_0_when_all_is_well_and_1_for_a_wrong_key(service: FakeService, demo: Command, tmp_path: Path) -> None:
    key = tmp_path / "key.txt"
    key.write_text("good-key\n")
    assert demo("--base-url", service.url, "--api-key-file", str(key)).exit_code == 0
    key.write_text("other-key\n")
    result = demo("--base-url", service.url, "--api-key-file", str(key))
    assert result.exit_code == 1
    assert "answered 401 unauthenticated: this key is unknown" in result.output


def test_a_queue_that_stands_still_is_reported() -> None:
    stuck = QueueCounts(pending=12, processing=3, done=5, dead=1)
    with pytest.raises(DemoError, match="12 pending, 3 processing and 1 dead"):
        wait_until_searchable(lambda: stuck, 20, Console(file=io.StringIO()), stall_seconds=0.05, poll_seconds=0.01)


def test_a_slow_queue_that_moves_is_waited_for() -> None:
    counts = iter(QueueCounts(pending=10 - done, processing=0, done=done, dead=0) for done in range(11))

    out = io.StringIO()
    wait_until_searchable(lambda: next(counts), 10, Console(file=out), stall_seconds=0.05, poll_seconds=0.02)
    assert "10 of 10 searchable" in out.getvalue()
