"""Tables on terminals of any width and in files: nothing is cut off, and an id stays on one line."""

import sys
from uuid import UUID

import pytest

from app.cli.console import make_table, numeric, print_table

KEY_ID = str(UUID(int=2**127 + 12345))
AGENT = "a-" * 64
CAUSE = "encoder_error:" + "x" * 236
SHAPES = {
    "keys list": (
        ["key id", "role", "agent", "state", "expires", "last used", "name"],
        [KEY_ID, "readonly", "ada", "active", "never", "2026-11-29 09:07Z", "the laptop of ada"],
    ),
    "keys audit": (
        ["at", "by", "action", "subject", "details"],
        ["2026-11-29 09:07:00Z", KEY_ID, "rotate key", KEY_ID[::-1], '{"new_key_id": "' + KEY_ID + '"}'],
    ),
    "queue status": (
        ["process", "slots", "model", "heard from", "problem"],
        ["worker-1@a-host-with-a-long-name.example", "8", "all-MiniLM-L6-v2 float32", "3 s ago", ""],
    ),
    "reconcile runs": (
        ["started", "kind", "took", "found", "repaired", "error"],
        ["2026-11-29 09:07:00Z", "vectors (dry)", "1.2 s", "12 missing_vector, 3 stale_vector", "nothing", ""],
    ),
    "queue dead": (["rows", "example", "cause"], ["1,234", KEY_ID, CAUSE]),
    "long agent": (["key id", "agent"], [KEY_ID, AGENT]),
}


def _shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], titles: list[str], rows: list[list[str]], width: int | None
) -> str:
    for name, value in {"COLUMNS": str(width or 80), "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: width is not None)
    table = make_table(*titles)
    for row in rows:
        table.add_row(*row)
    print_table(table)
    return capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[0m", "")


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_cut_off_at_any_width(
    shape: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    titles, row = SHAPES[shape]
    shown = _shown(monkeypatch, capsys, titles, [row, row], width)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    assert "…" not in shown
    if KEY_ID in row and width >= 60:
        assert shown.count(KEY_ID) >= 2, shown
    # Whatever was folded is there, piece by piece: no character is missing.
    letters = sorted("".join(shown.split()))
    once = sorted("".join((*titles, *row, *row)).replace(" ", ""))
    twice = sorted("".join((*titles, *titles, *row, *row)).replace(" ", ""))
    assert letters in (once, twice)


def test_file_has_one_line_for_each_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    titles, row = SHAPES["queue dead"]
    shown = _shown(monkeypatch, capsys, titles, [row, row], None)
    assert len(shown.splitlines()) == 3
    assert shown.count(CAUSE) == 2


def test_numbers_stand_right_and_a_table_that_fits_has_its_own_widths(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    table = make_table("kind", numeric("rows"))
    table.add_row("a b", "1")
    print_table(table)
    assert capsys.readouterr().out == "kind  rows\na b      1\n"


def test_table_without_rows_shows_its_titles(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "".join(_shown(monkeypatch, capsys, ["process", "heard"], [], 13).split()) == "processheard"


def test_what_would_steer_the_terminal_is_spelt_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Stored before such names were refused."""
    shown = _shown(monkeypatch, capsys, ["name"], [["\x1b[31mred\r\nb \u202egnp"]], 80)
    assert shown.splitlines()[1].rstrip() == r"\x1b[31mred\r\nb \u202egnp"
