"""The periodic tasks, each run once a tick however many beats send it."""

from app.reconcile.service import Kind
from tasks.celery_app import app
from tasks.lifecycle import child
from tasks.names import CHECK_RECALL, ENQUEUE_MISSING, PRUNE, RECONCILE, SEAL_LEDGER


@app.task(name=ENQUEUE_MISSING)
def enqueue_missing(*, period_seconds: int) -> int:
    """Enqueue episodes that the triggers missed and return how many."""
    queue = child().services.queue
    return queue.enqueue_missing() if queue.begin_tick(ENQUEUE_MISSING, period_seconds) else 0


@app.task(name=PRUNE)
def prune(*, period_seconds: int) -> dict[str, int]:
    """Forget old ticks and processes long gone, and return how many of each."""
    queue = child().services.queue
    return queue.prune() if queue.begin_tick(PRUNE, period_seconds) else {}


@app.task(name=SEAL_LEDGER)
def seal_ledger(*, period_seconds: int) -> int:
    """Seal what is full or old enough of the ledger and return how many ranges."""
    services = child().services
    return services.sealing.seal().ranges if services.queue.begin_tick(SEAL_LEDGER, period_seconds) else 0


@app.task(name=RECONCILE)
def reconcile(*, kind: Kind, period_seconds: int) -> dict[str, int]:
    """Compare the stores, repair what differs, and return how much of what was found."""
    services = child().services
    if not services.queue.begin_tick(f"{RECONCILE}.{kind}", period_seconds):
        return {}
    return dict(services.reconciliation.run(kind).found)


@app.task(name=CHECK_RECALL)
def check_recall(*, period_seconds: int) -> float | None:
    """Compare the vector index with an exact scan and return the recall, None when nothing is searched through the index."""
    services = child().services
    if not services.queue.begin_tick(CHECK_RECALL, period_seconds):
        return None
    found = services.recall.check()
    return None if found is None else found.mean
