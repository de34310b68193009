"""Exports and imports beside others that write: nothing is lost, and nobody is the victim of a deadlock."""

import orjson

from app.bootstrap import Services
from tests.factories.statements import Sql

HEADER = {"type": "header", "format": "nexus-cerebro-export", "version": 1}


def test_blocks_that_come_and_go_while_an_export_is_read_cost_no_other_block(services: Services, sql: Sql) -> None:
    sql(
        "INSERT INTO consciousness.memory_blocks (agent_id, label, value)"
        " SELECT 'alice', 'm' || to_char(n, 'FM0000'), 'x' FROM generate_series(0, 599) n"
    )
    lines = services.exports.lines("alice")
    read = [orjson.loads(line) for page in (next(lines), next(lines)) for line in page.splitlines()]
    # Before what has been read, so that every place after it shifts: first back, then on.
    sql("DELETE FROM consciousness.memory_blocks WHERE label BETWEEN 'm0000' AND 'm0049'")
    read += [orjson.loads(line) for line in next(lines).splitlines()]
    sql(
        "INSERT INTO consciousness.memory_blocks (agent_id, label, value)"
        " SELECT 'alice', 'a' || to_char(n, 'FM0000'), 'x' FROM generate_series(0, 149) n"
    )
    read += [orjson.loads(line) for page in lines for line in page.splitlines()]
    labels = [line["label"] for line in read if line["type"] == "block"]
    assert labels == [f"m{n:04}" for n in range(600)]
    assert read[-1]["counts"]["block"] == 600
