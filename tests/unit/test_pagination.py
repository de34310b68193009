"""Cursors: bound to their list, and nothing in them reaches the database that is not of the right kind."""

import base64

import orjson
import pytest

from app.api import pagination
from app.errors import InvalidRequest

LIST = ["list"]


def forged(position: object) -> str:
    """Return a cursor of that list with another position."""
    digest = orjson.loads(base64.urlsafe_b64decode(pagination.encode(LIST, []) + "=="))[0]
    return base64.urlsafe_b64encode(orjson.dumps([digest, position])).decode().rstrip("=")


def test_cursor_comes_back_as_it_was_given() -> None:
    assert pagination.decode(pagination.encode(LIST, ["2026-01-01T00:00:00Z", 7]), LIST) == ["2026-01-01T00:00:00Z", 7]
    assert pagination.decode_seq(pagination.encode(LIST, [7]), LIST) == 7


@pytest.mark.parametrize("position", [[True], [1, False], None, 5, "x", {"a": 1}])
def test_forged_position_is_refused(position: object) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        pagination.decode(forged(position), LIST)


@pytest.mark.parametrize("position", [[True], [0], [-1], [2**63], ["7"], [7, 8], []])
def test_forged_number_is_refused(position: list[object]) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        pagination.decode_seq(forged(position), LIST)


def test_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="other filters"):
        pagination.decode(pagination.encode(["other"], [1]), LIST)
