"""Packs claimed rows into messages: like lengths together, so that the encoder pads little."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from uuid import UUID

from app.queue.models import Batch, Claim, ClaimedRow

QUEUE_HIGH = "embed.hi"
QUEUE_BULK = "embed.bulk"
QUEUE_SOLO = "embed.solo"
EMBED_QUEUES = (QUEUE_HIGH, QUEUE_BULK, QUEUE_SOLO)
"""The Celery queues of embedding, most urgent first."""

_LAST_HIGH_LANE = 1


def queue_of(row: ClaimedRow) -> str:
    """Return the queue of a row: suspects go alone, the lanes critical and high overtake the rest."""
    if row.solo:
        return QUEUE_SOLO
    return QUEUE_HIGH if row.priority <= _LAST_HIGH_LANE else QUEUE_BULK


def pack(rows: Iterable[ClaimedRow], token: UUID, max_rows: int, max_chars: int) -> list[Batch]:
    """Return the rows as batches, each of one queue, one kind and one model, urgent queues first.

    Args:
        rows: In any order.
        token: The claim they share.
        max_rows: Most rows of a batch.
        max_chars: Most characters of a batch, but a longer row still goes, alone.
    """

    def group(row: ClaimedRow) -> tuple[int, str, int]:
        return EMBED_QUEUES.index(queue_of(row)), row.target_kind, row.model_id

    batches = []
    for _, members in groupby(sorted(rows, key=lambda row: (*group(row), row.input_chars, row.target_id)), key=group):
        batches.extend(_pack_group(list(members), token, max_rows, max_chars))
    return batches


def _pack_group(rows: Sequence[ClaimedRow], token: UUID, max_rows: int, max_chars: int) -> list[Batch]:
    limit = 1 if rows[0].solo else max_rows
    batches: list[Batch] = []
    current: list[ClaimedRow] = []
    chars = 0
    for row in rows:
        if current and (len(current) == limit or chars + row.input_chars > max_chars):
            batches.append(_batch(current, token))
            current, chars = [], 0
        current.append(row)
        chars += row.input_chars
    batches.append(_batch(current, token))
    return batches


def _batch(rows: Sequence[ClaimedRow], token: UUID) -> Batch:
    first = rows[0]
    claim = Claim(first.target_kind, first.model_id, tuple(row.target_id for row in rows), token)
    return Batch(queue_of(first), claim, sum(row.input_chars for row in rows))
