"""Logs are JSON lines without secrets and without memory content."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from app.config import Settings
from app.observability import context
from app.observability.logs import configure_logging

SECRET = "nxs_admin_" + "a" * 40


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Any]:
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    configure_logging(Settings(secrets_dir=tmp_path), "api", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_line_names_process_level_time_and_request(lines: Any) -> None:
    context.start("req-1")
    context.add(agent_id="alice")
    structlog.get_logger().info("stored", count=2)
    (line,) = lines()
    assert line["event"] == "stored"
    assert line["count"] == 2
    assert line["process"] == "api"
    assert line["level"] == "info"
    assert line["request_id"] == "req-1"
    assert line["agent_id"] == "alice"
    assert line["timestamp"].endswith("Z")


def test_secrets_and_content_are_hidden_wherever_they_stand(lines: Any) -> None:
    structlog.get_logger().info(
        f"tried {SECRET}",
        content="my diary",
        Authorization="Bearer x",
        nested={"x-api-key": "k", "deep": [{"password": "p"}, SECRET]},
        url="redis://user:hunter2@localhost/0",
    )
    logging.getLogger("library").warning("connecting to %s with %s", "postgresql://nexus_app:hunter2@db/x", SECRET)
    written = json.dumps(lines())
    for hidden in (SECRET, "my diary", "Bearer x", '"k"', '"p"', "hunter2"):
        assert hidden not in written
    assert lines()[1]["logger"] == "library"
    assert lines()[1]["process"] == "api"


@pytest.mark.parametrize("log_level", ["INFO", "DEBUG"])
def test_url_that_this_process_asks_is_written_at_no_level(log_level: Any, tmp_path: Path, lines: Any) -> None:
    stream = io.StringIO()
    configure_logging(Settings(secrets_dir=tmp_path, log_level=log_level), "mcp", stream)
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        client.get("http://api/memory/working/my-diary", params={"session_id": "my-session"})
    logging.getLogger("httpcore.http11").debug("send_request_headers.started request=%s", "my-diary")
    assert stream.getvalue() == ""


def _fail() -> None:
    raise ValueError("DETAIL: Failing row contains (my diary)")


def _fail_twice() -> None:
    try:
        _fail()
    except ValueError as error:
        raise RuntimeError("while storing my diary") from error


def test_exception_is_logged_by_class_and_place_without_its_message(lines: Any) -> None:
    try:
        _fail_twice()
    except RuntimeError as error:
        structlog.get_logger().error("crashed", exc_info=error)
        logging.getLogger("library").exception("crashed too")
    for line in lines():
        assert [entry["type"] for entry in line["exception"]] == ["builtins.RuntimeError", "builtins.ValueError"]
        assert any("test_api_logs.py" in frame for frame in line["exception"][0]["frames"])
    assert "my diary" not in json.dumps(lines())


class _GoneReader(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_line_that_nobody_can_read_is_lost_and_nothing_else(tmp_path: Path, lines: Any) -> None:
    """As when the process that reads the pipe was killed: the line is written after the commit, and an error would hide the receipt."""
    configure_logging(Settings(secrets_dir=tmp_path), "api", _GoneReader())
    structlog.get_logger().info("stored")
    logging.getLogger("library").warning("something")
    assert lines() == []
