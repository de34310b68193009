"""Flower and the tools listen where their settings say, and on loopback when those say nothing."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.mcp import server
from app.stack.secret_files import write_missing

FLOWER = Path(__file__).resolve().parents[2] / "tasks" / "flower_config.py"


@pytest.mark.parametrize(("given", "address"), [(None, "127.0.0.1"), ("0.0.0.0", "0.0.0.0")])
def test_flower_listens_at_flower_host(given: str | None, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_missing(Settings(secrets_dir=tmp_path))
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    if given is not None:
        monkeypatch.setenv("FLOWER_HOST", given)
    assert runpy.run_path(str(FLOWER))["address"] == address


@pytest.mark.parametrize(("given", "address"), [({}, "127.0.0.1"), ({"mcp_host": "0.0.0.0"}, "0.0.0.0")])
def test_tools_listen_at_mcp_host(given: dict[str, str], address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("uvicorn.run", lambda _app, **options: seen.update(options))
    monkeypatch.setattr(server, "configure_logging", lambda *_: None)
    server.serve_http(Settings(**given))  # type: ignore[arg-type]
    assert (seen["host"], seen["port"]) == (address, 8003)
