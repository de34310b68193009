"""The target of a migration is unsound: only the migration rests, live work goes on, and a rollback leaves nothing of it in a worker."""

import gc
import time
import weakref
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from app.bootstrap import Services, WorkerServices, build_worker_services
from app.config import Settings
from app.db import Database
from app.embedding.encoder import EncodingFault
from app.embedding.models import EmbeddingModel
from app.embedding.service import EmbeddingService
from app.embedding.weights import DEFAULT_SHA256
from tests.factories.encoder import FakeEncoder
from tests.factories.model_change import OTHER, Migrate, Working, run, store
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

REASON = "encoding_fault: not a finite vector with a direction"
_TARGETS_ROWS = (
    "SELECT DISTINCT state, retry_count::int, last_error, due_at > now() + interval '20 s'"
    " FROM memory_system.embeddings_queue WHERE model_id = 2"
)
_STATES = "SELECT state, count(*)::int FROM memory_system.embeddings_queue WHERE model_id = 1 GROUP BY 1"


def not_finite() -> EncodingFault:
    """Return what one weight that is not a number makes of every text; a new one, for a raised one keeps its encoder in memory."""
    return EncodingFault("broken", reason="not a finite vector with a direction")


class Watched:
    """What a worker tells the process around it.

    Attributes:
        problems: What it announced, in order.
        given_up: How often it asked for a fresh process.
    """

    def __init__(self, embedding: EmbeddingService) -> None:
        self.problems: list[str | None] = []
        self.given_up = 0
        embedding.when_changed = lambda: self.problems.append(embedding.problem)
        embedding.when_hopeless = self._give_up

    def _give_up(self) -> None:
        self.given_up += 1


@pytest.fixture
def database_settings(database_settings: Settings) -> Settings:
    """Let a breaker be hopeless soon, and a pause of the worker be long enough to be seen."""
    return database_settings.model_copy(update={"breaker_base_seconds": 0.02, "breaker_max_seconds": 0.02, "heartbeat_seconds": 3.0})


@pytest.fixture
def watched(workshop: Workshop) -> Iterator[Watched]:
    yield Watched(workshop.embedding)
    for held in workshop.embedding._models._models.values():
        held.breaker.stop()


@pytest.fixture
def target(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql, watched: Watched
) -> EmbeddingModel:
    """A migration that has begun, with work for its target in the queue."""
    assert watched.problems == []
    store(services, "alice", *(f"old {n}" for n in range(8)))
    workshop.drain()
    begun = migration().begin(encoders[OTHER], "/models/other")
    sql("SELECT memory_system.enqueue_for_model('alice', %s::smallint, 10)", begun.model_id)
    return begun


def post_and_embed(services: Services, workshop: Workshop, name: str) -> float:
    """Post live for a while, embed what is due, and return the seconds that the worker took."""
    seconds = 0.0
    for n in range(5):
        store(services, "alice", f"live {name} {n}")
        began = time.monotonic()
        for batch in workshop.claim():
            workshop.process(batch)
        seconds += time.monotonic() - began
    return seconds


@pytest.mark.parametrize("broken_from", ["the start", "its second batch"])
def test_broken_target_charges_nobody_and_live_work_goes_on_without_a_pause(
    broken_from: str,
    services: Services,
    workshop: Workshop,
    encoders: dict[str, FakeEncoder],
    sql: Sql,
    target: EmbeddingModel,
    watched: Watched,
) -> None:
    if broken_from == "its second batch":
        workshop.drain()
        assert sum(encoders[OTHER].calls) == 8
    encoders[OTHER].broken = not_finite()
    assert post_and_embed(services, workshop, "one") < 2.0, "live work waited for the target"
    assert {row[3] for row in sql(_TARGETS_ROWS) if row[0] != "done"} == {True}, "its rows must not come back in a second"
    workshop.make_due()
    assert post_and_embed(services, workshop, "two") < 2.0, "live work waited for the target"
    assert sql(_STATES) == [("done", 18)]
    left = [row for row in sql(_TARGETS_ROWS) if row[0] != "done"]
    assert left == [("pending", 0, REASON, True)], "rows of a broken target must wait, uncharged"
    assert (watched.problems, watched.given_up, workshop.embedding.problem) == ([], 0, None)
    assert workshop.embedding.model.model_id != target.model_id


def test_rollback_leaves_the_worker_healthy_at_once_and_frees_the_target(
    services: Services,
    workshop: Workshop,
    migration: Migrate,
    encoders: dict[str, FakeEncoder],
    target: EmbeddingModel,
    watched: Watched,
) -> None:
    workshop.drain()
    encoders[OTHER].broken = not_finite()
    post_and_embed(services, workshop, "before")
    breaker = workshop.embedding._models._models[target.model_id].breaker
    assert breaker.reason == REASON
    migration().rollback()
    workshop.embedding.look(0)
    assert breaker._stopped.is_set(), "an abandoned encoder must not be probed on"
    deserted = weakref.ref(encoders.pop(OTHER))
    deadline = time.monotonic() + 5
    while deserted() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert deserted() is None, "the target's encoder is kept in memory"
    assert post_and_embed(services, workshop, "after") < 2.0
    assert (watched.problems, watched.given_up) == ([], 0)


def test_migration_begun_again_loads_its_target_anew_and_ends(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql, target: EmbeddingModel
) -> None:
    encoders[OTHER].broken = not_finite()
    workshop.drain()
    migration().rollback()
    workshop.embedding.look(0)
    mended = encoders[OTHER] = FakeEncoder(OTHER, 64)
    with Working(workshop):
        again = run(migration(), mended)
    assert again.fingerprint == target.fingerprint
    assert sum(mended.calls) == 8
    workshop.embedding.look(0)
    assert (workshop.embedding.model.model_id, workshop.embedding.precision) == (again.model_id, "fp32")


class Loads:
    """Loads of a worker's models, where the target's always fail.

    Attributes:
        tried: How often the target was tried.
    """

    def __init__(self, encoder: FakeEncoder, error: Exception | None) -> None:
        self._encoder = encoder
        self._error = error
        self.tried = 0

    def __call__(self, model: EmbeddingModel) -> FakeEncoder:
        if model.fingerprint == DEFAULT_SHA256:
            return self._encoder
        self.tried += 1
        if self._error is not None:
            raise self._error
        unsound = FakeEncoder(OTHER, 64)
        unsound.broken = not_finite()
        return unsound


@pytest.fixture(params=[TypeError("a library's"), MemoryError(), None], ids=["library", "memory", "first_probe"])
def loads(request: pytest.FixtureRequest, encoder: FakeEncoder) -> Loads:
    return Loads(encoder, request.param)


@pytest.fixture
def failing(database_settings: Settings, loads: Loads, worker_database: Database) -> WorkerServices:
    """A worker that cannot have the target."""
    return build_worker_services(database_settings, load=loads, database=worker_database)


def test_target_that_cannot_be_used_is_tried_once_in_the_window_with_one_line_in_the_log(
    services: Services,
    workshop: Workshop,
    failing: WorkerServices,
    loads: Loads,
    encoder: FakeEncoder,
    worker_database: Database,
    sql: Sql,
    target: EmbeddingModel,
) -> None:
    worker = Workshop(failing, worker_database, encoder)
    with capture_logs() as lines:
        for n in range(4):
            worker.make_due()
            post_and_embed(services, worker, f"{n}")
    assert loads.tried == 1, "it was loaded anew for other batches"
    assert [line["event"] for line in lines] == ["model_not_loaded"]
    assert {row[:2] for row in sql(_TARGETS_ROWS)} == {("pending", 0)}
    failing.embedding._models._models[target.model_id]._retry_at = time.monotonic()
    worker.make_due()
    worker.drain()
    assert loads.tried == 2, "after the window it must be tried again"


def test_broken_active_model_pauses_the_worker_as_before_though_a_migration_runs(
    services: Services, workshop: Workshop, encoder: FakeEncoder, target: EmbeddingModel, watched: Watched
) -> None:
    workshop.drain()
    store(services, "alice", "one", "two")
    batches = [batch for batch in workshop.claim() if batch.claim.model_id != target.model_id]
    encoder.broken = not_finite()
    for batch in batches:
        assert workshop.process(batch).done == 0
    assert "fails for every text" in str(watched.problems[-1])
    deadline = time.monotonic() + 5
    while not watched.given_up and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watched.given_up, "a process whose active model stays broken must be replaced"
    workshop.make_due()
    began = time.monotonic()
    again = next(batch for batch in workshop.claim() if batch.claim.model_id != target.model_id)
    assert workshop.process(again).lost == 1
    assert time.monotonic() - began >= 2.5, "the worker must not run through messages while its active model is broken"
    encoder.broken = None
    assert workshop.embedding.breaker.wait_closed(5)
    assert watched.problems[-1] is None


def test_broken_target_that_becomes_active_is_a_problem_of_the_worker_from_then_on(
    services: Services, workshop: Workshop, encoders: dict[str, FakeEncoder], sql: Sql, target: EmbeddingModel, watched: Watched
) -> None:
    workshop.drain()
    encoders[OTHER].broken = not_finite()
    post_and_embed(services, workshop, "one")
    assert (workshop.embedding.problem, watched.problems) == (None, [])
    # Other workers embedded the rest.
    sql("UPDATE memory_system.embedding_models SET is_active = false WHERE is_active")
    sql("UPDATE memory_system.embedding_models SET is_active = true, is_target = false WHERE model_id = %s", target.model_id)
    workshop.embedding.look(0)
    assert workshop.embedding.model.model_id == target.model_id
    assert watched.problems == ["the encoder fails for every text (" + REASON + ")"]
