"""Rows that plain SQL may store are answered like any other."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from app.bootstrap import Services

HUGE = 123456789012345678901234567890


def _insert(services: Services, columns: str, values: str) -> None:
    with services.database.transaction("odd") as connection:
        connection.execute(
            text(f"INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content, {columns}) VALUES ('odd', 'an odd row', {values})")
        )


@pytest.mark.parametrize("metadata", ['{"n": 123456789012345678901234567890}', '{"n": 1e40}'])
def test_numbers_beyond_64_bits_come_back_from_every_route(services: Services, client: FlaskClient, metadata: str) -> None:
    _insert(services, "metadata", f"'{metadata}'")
    headers = {"X-Agent-Id": "odd"}
    for _ in range(2):  # The second answer would come from the cache.
        recent = client.get("/memory/episodic/recent", headers=headers)
        assert recent.status_code == 200
        item: dict[str, Any] = recent.get_json()["items"][0]
        assert item["metadata"]["n"] in (HUGE, 10**40)
    assert client.get(f"/memory/episodic/{item['episode_id']}", headers=headers).get_json()["metadata"] == item["metadata"]
    found = client.post("/memory/search", json={"query": "odd row", "mode": "keyword"}, headers=headers).get_json()
    assert found["results"][0]["metadata"] == item["metadata"]
    assert found["results"][0]["occurred_at"].endswith("Z")


@pytest.mark.parametrize("moment", ["4000-01-01 BC", "20000-01-01", "infinity", "-infinity"])
def test_a_time_that_no_client_can_read_is_refused_by_the_database(services: Services, moment: str) -> None:
    with pytest.raises(DBAPIError, match="ck_zep_episodic_memory_timestamp"):
        _insert(services, '"timestamp"', f"'{moment}'")


@pytest.mark.parametrize("column", ["version", "receipt_nonce", "embedding_sha256", "created_at"])
def test_what_the_database_gives_cannot_be_chosen_by_plain_sql(services: Services, column: str) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        _insert(services, column, "DEFAULT")


@pytest.mark.parametrize("column", ["metadata", "action_details", "context_state"])
def test_nesting_that_no_reader_can_follow_is_refused_by_the_database(services: Services, column: str) -> None:
    allowed, refused = (f"""'{{"a": {"[" * depth}{"]" * depth}}}'""" for depth in (64, 65))
    _insert(services, column, allowed)
    with pytest.raises(DBAPIError, match="ck_zep_episodic_memory_nesting"):
        _insert(services, column, refused)


def test_seq_cannot_be_occupied_ahead(services: Services) -> None:
    statement = "INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content, seq) OVERRIDING SYSTEM VALUE VALUES ('odd', 'x', 999)"
    with pytest.raises(ProgrammingError, match="permission denied"), services.database.transaction("odd") as connection:
        connection.execute(text(statement))
