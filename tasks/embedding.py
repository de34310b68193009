"""The task that embeds one batch."""

from app.queue.models import TargetKind
from tasks.celery_app import app, settings
from tasks.lifecycle import child
from tasks.messages import claim_of
from tasks.names import EMBED_BATCH
from tasks.time_limit import ends_process_after


@app.task(name=EMBED_BATCH)
def embed_batch(
    *, target_kind: TargetKind, model_id: int, target_ids: list[str], token: str, limit_seconds: float = settings.task_time_limit_seconds
) -> dict[str, int]:
    """Embed the rows that the token still holds; a second delivery does nothing. Returns counts, for Flower."""
    claim = claim_of(target_kind=target_kind, model_id=model_id, target_ids=target_ids, token=token)
    with ends_process_after(limit_seconds):
        outcome = child().services.embedding.process(claim)
    return {"done": outcome.done, "failed": outcome.failed, "lost": outcome.lost}
