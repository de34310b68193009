"""Who an agent is, as far as its memory blocks say: one hash over them, and how far two states of them agree. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass


def identity_hash(blocks: Mapping[str, str]) -> str:
    """Return the SHA-256, in hex, of the blocks in canonical form.

    The canonical form is the UTF-8 JSON array of [label, value] pairs in code point order of the labels, without white space and with
    nothing escaped that JSON lets stand. Labels and values count as stored, without Unicode normalisation.

    Source: RFC 8785, which for an array of strings is just that.
    """
    pairs = sorted(blocks.items())
    return hashlib.sha256(json.dumps(pairs, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Continuity:
    """How a later state of the blocks differs from an earlier one, labels in order.

    `score` is the share of all labels of either state whose value is the same in both; 1.0 when both states are empty.
    """

    score: float
    changed: list[str]
    added: list[str]
    removed: list[str]


def compare(before: Mapping[str, str], now: Mapping[str, str]) -> Continuity:
    """Return how far the blocks now are those of before."""
    changed = sorted(label for label in before.keys() & now.keys() if before[label] != now[label])
    added, removed = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
    labels = len(before.keys() | now.keys())
    same = labels - len(changed) - len(added) - len(removed)
    return Continuity(same / labels if labels else 1.0, changed, added, removed)
