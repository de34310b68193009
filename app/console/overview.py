"""The first page: whether memory works, what every component says, and what the queue is doing."""

import time

from flask import Response, g
from flask_openapi3.blueprint import APIBlueprint

from app.api.services import services
from app.cache.depths import Depth
from app.console import chart, pages
from app.identity.permissions import Permission

blueprint = APIBlueprint("overview", __name__, doc_ui=False)


@blueprint.get("/")
def show_overview() -> Response:
    """Show everything at once."""
    stats = services().stats.stats(g.principal.agent_id)
    queue = _queue() if pages.may(Permission.READ_QUEUE) else None
    return pages.page("overview.html", report=services().health.report(), stats=stats, queue=queue)


@blueprint.get("/live/health")
def show_health() -> Response:
    """Show the state of every component, for the page to refresh itself."""
    return pages.page("health_part.html", report=services().health.report())


@blueprint.get("/live/queue")
def show_queue() -> Response:
    """Show the queue, for the page to refresh itself."""
    return pages.page("queue_part.html", queue=_queue())


def _queue() -> dict[str, object]:
    status = services().queue_status.status()
    services().queue_depths.note(status.pending, status.processing, status.done, status.dead)
    now = time.time()
    # The curves end at what the figures beside them say.
    samples = [*services().queue_depths.lately(), Depth(now, status.pending, status.processing, status.done, status.dead)]
    return {"status": status, "depth": chart.depth_chart(samples, now), "rate": chart.rate_chart(samples, now), "samples": len(samples) - 1}
