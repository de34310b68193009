"""The decision table from facts to verdicts, each row once, and the whole space for holes."""

from dataclasses import replace
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from app.integrity.verdicts import Facts, judge

WORDS = {"searchable", "pending", "processing", "dead", "stale", "superseded", "deleted", "altered", "missing"}
GOOD = Facts(
    episode_id=UUID(int=1),
    seq=1,
    version=1,
    is_accepted=True,
    receipt_matches=True,
    is_deleted=False,
    row_exists=True,
    row_version=1,
    row_matches_ledger=True,
    queue_state="done",
    has_vector=True,
    is_vector_intact=True,
)
GONE = {
    "row_exists": False,
    "row_version": None,
    "row_matches_ledger": False,
    "queue_state": None,
    "has_vector": None,
    "is_vector_intact": None,
}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "searchable"),
        ({"queue_state": "pending", "has_vector": False}, "pending"),
        ({"queue_state": "processing", "has_vector": False}, "processing"),
        ({"queue_state": "dead", "has_vector": False}, "dead"),
        ({"has_vector": False}, "stale"),
        ({"queue_state": None, "has_vector": False}, "stale"),
        ({"has_vector": None}, "stale"),
        ({"queue_state": None}, "searchable"),
        ({"is_vector_intact": False}, "altered"),
        ({"row_version": 2}, "superseded"),
        ({"row_version": 2, "queue_state": "pending"}, "superseded"),
        ({"row_matches_ledger": False}, "altered"),
        ({"row_matches_ledger": False, "row_version": 2}, "altered"),
        ({"receipt_matches": False}, "altered"),
        ({"receipt_matches": False, "is_deleted": True, **GONE}, "altered"),
        ({"is_deleted": True, **GONE}, "deleted"),
        (GONE, "missing"),
        ({"is_accepted": False, "receipt_matches": False}, "altered"),
        ({"is_accepted": False, "receipt_matches": False, **GONE}, "missing"),
    ],
)
def test_verdict(changes: dict[str, Any], word: str) -> None:
    verdict = judge(replace(GOOD, **changes))
    assert verdict.verdict == word
    assert (verdict.episode_id, verdict.seq, verdict.version) == (GOOD.episode_id, GOOD.seq, GOOD.version)


def test_searchable_means_that_nothing_at_all_is_wrong() -> None:
    flags = [(True, False)] * 5
    for accepted, matches, deleted, exists, row_matches in product(*flags):
        for version, state, vector, intact in product(
            (1, 2), (None, "pending", "processing", "done", "dead"), (True, False), (True, False)
        ):
            facts = replace(
                GOOD,
                is_accepted=accepted,
                receipt_matches=matches,
                is_deleted=deleted,
                row_exists=exists,
                row_matches_ledger=row_matches,
                row_version=version,
                queue_state=state,
                has_vector=vector,
                is_vector_intact=intact,
            )
            verdict = judge(facts)
            assert verdict.verdict in WORDS
            assert verdict.detail
            is_sound = accepted and matches and not deleted and exists and row_matches and version == 1 and vector and intact
            assert (verdict.verdict == "searchable") == (is_sound and state in (None, "done"))
