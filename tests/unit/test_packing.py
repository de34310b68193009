"""Claimed rows become messages: nothing lost or doubled, limits kept, like lengths together, suspects alone."""

from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.queue.models import ClaimedRow
from app.queue.packing import EMBED_QUEUES, QUEUE_BULK, QUEUE_HIGH, QUEUE_SOLO, pack, queue_of

TOKEN = UUID(int=7)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = st.lists(
    st.builds(
        ClaimedRow,
        target_kind=st.sampled_from(["episodic", "semantic"]),
        target_id=st.uuids(),
        model_id=st.sampled_from([1, 2]),
        input_chars=st.integers(1, 60_000),
        priority=st.integers(0, 3),
        solo=st.booleans(),
        due_at=st.just(NOW),
    ),
    max_size=120,
    unique_by=lambda row: row.target_id,
)


@given(ROWS, st.integers(1, 40), st.integers(1, 40_000))
def test_every_row_goes_once_within_the_limits(rows: list[ClaimedRow], max_rows: int, max_chars: int) -> None:
    by_id = {row.target_id: row for row in rows}
    batches = pack(rows, TOKEN, max_rows, max_chars)
    assert sorted(target_id for batch in batches for target_id in batch.claim.target_ids) == sorted(by_id)
    for batch in batches:
        members = [by_id[target_id] for target_id in batch.claim.target_ids]
        assert batch.claim.token == TOKEN
        assert {(queue_of(row), row.target_kind, row.model_id) for row in members} == {
            (batch.queue, batch.claim.target_kind, batch.claim.model_id)
        }
        assert len(members) <= (1 if batch.queue == QUEUE_SOLO else max_rows)
        assert len(members) == 1 or sum(row.input_chars for row in members) <= max_chars


@given(ROWS)
def test_urgent_queues_come_first_and_lengths_ascend(rows: list[ClaimedRow]) -> None:
    by_id = {row.target_id: row for row in rows}
    batches = pack(rows, TOKEN, 32, 16_000)
    order = [EMBED_QUEUES.index(batch.queue) for batch in batches]
    assert order == sorted(order)
    for one, next_ in pairwise(batches):
        if (one.queue, one.claim.target_kind, one.claim.model_id) == (next_.queue, next_.claim.target_kind, next_.claim.model_id):
            assert by_id[one.claim.target_ids[-1]].input_chars <= by_id[next_.claim.target_ids[0]].input_chars


def test_nothing_makes_no_batch() -> None:
    assert pack([], TOKEN, 32, 16_000) == []


@pytest.mark.parametrize(
    ("priority", "solo", "queue"),
    [
        (0, False, QUEUE_HIGH),
        (1, False, QUEUE_HIGH),
        (2, False, QUEUE_BULK),
        (3, False, QUEUE_BULK),
        (0, True, QUEUE_SOLO),
        (3, True, QUEUE_SOLO),
    ],
)
def test_queue_follows_lane_and_suspicion(priority: int, solo: bool, queue: str) -> None:
    assert queue_of(ClaimedRow("episodic", UUID(int=1), 1, 1, priority, solo, NOW)) == queue
