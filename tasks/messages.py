"""A claim as the arguments of its Celery task, and back."""

from typing import Any
from uuid import UUID

from app.queue.models import Claim, TargetKind


def message_of(claim: Claim) -> dict[str, Any]:
    """Return the task's keyword arguments, JSON scalars and lists only."""
    return {
        "target_kind": claim.target_kind,
        "model_id": claim.model_id,
        "target_ids": list(map(str, claim.target_ids)),
        "token": str(claim.token),
    }


def claim_of(*, target_kind: TargetKind, model_id: int, target_ids: list[str], token: str) -> Claim:
    """Return the claim that a task's keyword arguments stand for."""
    return Claim(target_kind, model_id, tuple(UUID(target_id) for target_id in target_ids), UUID(token))
