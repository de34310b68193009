"""The task that embeds one batch."""

from app.queue.models import TargetKind
from tasks.celery_app import app
from tasks.lifecycle import child
from tasks.messages import claim_of
from tasks.names import EMBED_BATCH


@app.task(name=EMBED_BATCH)
def embed_batch(*, target_kind: TargetKind, model_id: int, target_ids: list[str], token: str) -> dict[str, int]:
    """Embed the rows that the token still holds; a second delivery does nothing. Returns counts, for Flower."""
    claim = claim_of(target_kind=target_kind, model_id=model_id, target_ids=target_ids, token=token)
    outcome = child().services.embedding.process(claim)
    return {"done": outcome.done, "failed": outcome.failed, "lost": outcome.lost}
