"""The task that embeds one batch."""

from typing import Any
from uuid import UUID

from app.queue.models import TargetKind
from tasks.celery_app import app
from tasks.lifecycle import child
from tasks.names import EMBED_BATCH


@app.task(name=EMBED_BATCH)
def embed_batch(*, target_kind: TargetKind, target_ids: list[str], token: str) -> dict[str, Any]:
    """Embed the rows that the token still holds; a second delivery does nothing. Returns counts, for Flower."""
    outcome = child().services.embedding.process(target_kind, [UUID(target_id) for target_id in target_ids], UUID(token))
    return {"done": outcome.done, "failed": outcome.failed, "lost": outcome.lost}
