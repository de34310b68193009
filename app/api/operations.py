"""Routes for operators: health, statistics, metrics."""

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from app.api.answers import json_answer
from app.api.authentication import find_agent, is_unverified
from app.api.schemas.operations import HealthAnswer, LivenessAnswer, ReadinessAnswer, StatsAnswer, StatsQuery
from app.api.services import request_metrics, services
from app.db_wait import answers_within
from app.errors import DatabaseUnavailable, InvalidRequest, Unavailable
from app.observability.readings import DatabaseReadings, render_database

_READING_SECONDS = 5.0

blueprint = APIBlueprint("operations", __name__, abp_tags=[Tag(name="operations")])


@blueprint.get("/health", responses={200: HealthAnswer, 503: HealthAnswer})
def get_health() -> Response:
    """Show every component with its latency; 503 when memory does not work."""
    report = services().health.report()
    return _answer(report, works=report.status != "unhealthy")


def _answer(report: object, *, works: bool) -> Response:
    answer = json_answer(report, 200 if works else 503)
    if not works:
        answer.headers["Retry-After"] = str(Unavailable.retry_after_seconds)
    return answer


@blueprint.get("/health/live", responses={200: LivenessAnswer})
def get_liveness() -> Response:
    """Say that the process answers; nothing else is looked at."""
    return json_answer({"status": "alive"})


@blueprint.get("/health/ready", responses={200: ReadinessAnswer, 503: ReadinessAnswer})
def get_readiness() -> Response:
    """Say whether this process can serve requests now."""
    is_ready, reason = services().health.ready()
    return _answer({"status": "ready" if is_ready else "not_ready", "reason": reason}, works=is_ready)


@blueprint.get("/stats", responses={200: StatsAnswer})
def get_stats(query: StatsQuery) -> Response:
    """Show totals and the queue: of one agent when named, or when the key is bound to one, else of all."""
    agent_id = find_agent(query.agent_id)
    if query.per_agent and agent_id is not None:
        raise InvalidRequest("per_agent counts all agents: it needs a key that serves any agent, and no agent named")
    return json_answer(services().stats.stats(agent_id, per_agent=query.per_agent))


@blueprint.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
def get_metrics() -> Response:
    """Expose metrics for Prometheus; open to callers on this machine."""
    # Whose key cannot be looked up while PostgreSQL is away is told that it is, and nothing else.
    own = b"" if is_unverified() else request_metrics().exposition()
    return Response(own + render_database(_read_database), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _read_database() -> DatabaseReadings:
    if is_unverified():
        raise DatabaseUnavailable("the database could not be asked whose key this is")
    # Prometheus gives up after ten seconds.
    with answers_within(_READING_SECONDS):
        return _readings()


def _readings() -> DatabaseReadings:
    counts = services().stats.queue()
    services().queue_depths.note(counts.pending, counts.processing, counts.done, counts.dead)
    advice = services().queue_status.advice()
    tallies = services().queue_status.tallies()
    reconciliation = services().stats.reconciliation()
    return DatabaseReadings(
        queue_depth={"pending": counts.pending, "processing": counts.processing, "done": counts.done, "dead": counts.dead},
        oldest_pending_age_seconds=counts.oldest_pending_seconds,
        processed=tallies.done,
        dead=tallies.dead,
        processing_latency=tallies.processing,
        time_to_searchable=tallies.searchable,
        accounting_identity_drift=services().integrity.drift(),
        workers_alive=advice.workers_at_work,
        dispatchers_alive=services().queue_status.dispatchers_alive(),
        workers_advised=advice.workers_advised,
        drift_found=reconciliation.found,
        drift_repaired=reconciliation.repaired,
        reconciled_at=reconciliation.last_finished,
        recall_at_10=services().stats.recall(),
    )
