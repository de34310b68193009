"""The name of every Celery task and queue, each typed here and nowhere else."""

from app.queue.packing import EMBED_QUEUES

EMBED_BATCH = "embedding.embed_batch"
PRUNE = "upkeep.prune"
ENQUEUE_MISSING = "upkeep.enqueue_missing"
SEAL_LEDGER = "upkeep.seal_ledger"
RECONCILE = "upkeep.reconcile"
CHECK_RECALL = "upkeep.check_recall"

QUEUE_UPKEEP = "upkeep"
CONSUMED_QUEUES = (*EMBED_QUEUES, QUEUE_UPKEEP)
