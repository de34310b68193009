"""Beat with a schedule of seconds: `celery -A tests.faults.sabotaged_beat beat`. Its ticks are those of the real tasks."""

from tasks.celery_app import app
from tasks.names import ENQUEUE_MISSING, QUEUE_UPKEEP
from tests.faults.switches import BEAT_SECONDS

app.conf.beat_schedule = {
    "often": {
        "task": ENQUEUE_MISSING,
        "schedule": float(BEAT_SECONDS),
        "kwargs": {"period_seconds": BEAT_SECONDS},
        "options": {"queue": QUEUE_UPKEEP},
    }
}
