"""Receipts: stored, as a client keeps them, and what the service says became of them."""

import json
from dataclasses import asdict
from typing import Any

from app.bootstrap import Services
from app.episodes.models import Receipt
from app.integrity.service import ReceiptClaim
from tests.factories.episodes import new_episode


def store(services: Services, count: int, agent_id: str = "alice") -> list[Receipt]:
    """Store so many episodes and return their receipts."""
    return services.episodes.store_many(agent_id, [new_episode(f"n{number}") for number in range(count)])


def as_json(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as a file has it."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(receipt), default=str))
    return values


def claim_of(receipt: Receipt) -> ReceiptClaim:
    """Return what a client claims with a receipt."""
    return ReceiptClaim(receipt.episode_id, receipt.seq, receipt.version, receipt.content_sha256, receipt.nonce)


def verdict(services: Services, receipt: Receipt | ReceiptClaim, agent_id: str | None = "alice") -> str:
    """Return the verdict on a receipt, in one word."""
    claim = receipt if isinstance(receipt, ReceiptClaim) else claim_of(receipt)
    (found,) = services.integrity.verify_receipts(agent_id, [claim])
    assert found.episode_id == claim.episode_id
    assert found.detail
    return found.verdict
