"""What beat sends, and how often: data only. Several beats do no harm, because each tick is claimed once in PostgreSQL."""

from tasks.names import CHECK_RECALL, ENQUEUE_MISSING, PRUNE, QUEUE_UPKEEP, RECONCILE, SEAL_LEDGER

BEAT_SCHEDULE = {
    "enqueue episodes that the triggers missed": {
        "task": ENQUEUE_MISSING,
        "schedule": 300.0,
        "kwargs": {"period_seconds": 300},
        "options": {"queue": QUEUE_UPKEEP},
    },
    "seal what is settled of the ledger": {
        "task": SEAL_LEDGER,
        "schedule": 60.0,
        "kwargs": {"period_seconds": 60},
        "options": {"queue": QUEUE_UPKEEP},
    },
    "compare working memory with Redis": {
        "task": RECONCILE,
        "schedule": 300.0,
        "kwargs": {"kind": "working", "period_seconds": 300},
        "options": {"queue": QUEUE_UPKEEP},
    },
    "compare memories with their vectors": {
        "task": RECONCILE,
        "schedule": 3600.0,
        "kwargs": {"kind": "vectors", "period_seconds": 3600},
        "options": {"queue": QUEUE_UPKEEP},
    },
    "compare the vector index with an exact scan": {
        "task": CHECK_RECALL,
        "schedule": 3600.0,
        "kwargs": {"period_seconds": 3600},
        "options": {"queue": QUEUE_UPKEEP},
    },
    "forget old ticks and silent processes": {
        "task": PRUNE,
        "schedule": 3600.0,
        "kwargs": {"period_seconds": 3600},
        "options": {"queue": QUEUE_UPKEEP},
    },
}
