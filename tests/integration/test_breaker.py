"""A model that fails for every text charges nobody and stops its worker; one bad row among good ones is charged as before."""

import threading
import time
from collections.abc import Sequence
from uuid import UUID

import pytest

from app.bootstrap import Services
from app.config import Settings
from app.embedding.breaker import Breaker
from app.embedding.encoder import EncodingFault
from tests.factories.episodes import new_episode, stored_row
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

BROKEN = EncodingFault("broken", reason="not a finite vector with a direction")


@pytest.fixture
def database_settings(database_settings: Settings) -> Settings:
    """Let a breaker probe every twentieth of a second."""
    return database_settings.model_copy(update={"breaker_base_seconds": 0.05, "breaker_max_seconds": 0.1})


def store(services: Services, *contents: str) -> list[UUID]:
    return [receipt.episode_id for receipt in services.episodes.store_many("alice", [new_episode(content) for content in contents])]


def model_breaks(services: Services, workshop: Workshop, sql: Sql, error: Exception) -> None:
    """The model fails for every text for longer than five attempts would last, and then is well again."""
    ids = store(services, *(f"text {n}" for n in range(40)))
    workshop.encoder.broken = error
    states: list[str | None] = []
    workshop.embedding.when_changed = lambda: states.append(workshop.embedding.problem)
    for _ in range(7):
        for batch in workshop.claim():
            assert workshop.embedding.process(batch.claim).done == 0
        workshop.make_due()
    rows = [stored_row(sql, episode_id) for episode_id in ids]
    assert {(row.state, row.retry_count) for row in rows} == {("pending", 0)}, "a model-wide fault charged a row"
    assert len(states) == 1, "the breaker stays open while the model is broken"
    assert "fails for every text" in str(states[0])
    workshop.encoder.broken = None
    assert workshop.embedding.breaker.wait_closed(5)
    assert states[-1] is None
    assert workshop.drain(waits=True) == 40
    assert {stored_row(sql, episode_id).retry_count for episode_id in ids} == {1}


@pytest.fixture
def quick(workshop: Workshop) -> None:
    """Let a declined batch come back at once instead of after a heartbeat."""
    workshop.embedding._settings = workshop.embedding._settings.model_copy(update={"heartbeat_seconds": 0.01})


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [BROKEN, RuntimeError("CUDA error"), MemoryError()], ids=["fault", "library", "memory"])
def test_broken_model_charges_nobody_and_the_worker_recovers_by_itself(
    error: Exception, services: Services, workshop: Workshop, sql: Sql
) -> None:
    model_breaks(services, workshop, sql, error)


@pytest.mark.usefixtures("quick")
def test_mutant_without_the_probe_charges_rows_for_a_broken_model(
    services: Services, workshop: Workshop, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaker, "probe", staticmethod(lambda _: None))
    with pytest.raises(AssertionError, match="charged a row"):
        model_breaks(services, workshop, sql, BROKEN)


def test_open_breaker_gives_rows_back_before_they_start_and_holds_the_worker(services: Services, workshop: Workshop, sql: Sql) -> None:
    (episode_id,) = store(services, "one")
    (batch,) = workshop.claim()
    workshop.embedding.breaker._base_seconds = 0.3
    workshop.embedding.breaker.open("encoder_error: RuntimeError", lambda _: None)
    began = time.monotonic()
    assert workshop.process(batch).lost == 1
    assert time.monotonic() - began > 0.2, "the worker must not run through messages while its encoder is broken"
    row = stored_row(sql, episode_id)
    assert (row.state, row.retry_count, row.solo, row.last_error) == ("pending", 0, False, None)
    assert workshop.encoder.calls == []


def test_row_that_breaks_the_model_is_charged_once_it_is_alone(services: Services, workshop: Workshop, sql: Sql) -> None:
    """Its batch is refunded, for nobody knows who did it; alone, between two probes, it is known."""
    poison, innocent = store(services, "poison", "innocent")

    def corrupt(texts: Sequence[str]) -> None:
        if "poison" in texts:
            workshop.encoder.broken = RuntimeError("device-side assert")
            raise workshop.encoder.broken

    workshop.encoder.before = corrupt
    deadline = time.monotonic() + 20
    while stored_row(sql, poison).state != "dead" and time.monotonic() < deadline:
        workshop.make_due()
        for batch in workshop.claim():
            workshop.process(batch)
        workshop.encoder.broken = None  # The process is replaced, or its device reset.
        assert workshop.embedding.breaker.wait_closed(5)
    workshop.drain(waits=True)
    row = stored_row(sql, poison)
    assert (row.state, row.retry_count, row.last_error) == ("dead", 5, "encoder_error: RuntimeError")
    assert (stored_row(sql, innocent).state, stored_row(sql, innocent).retry_count) == ("done", 1)


def test_pauses_double_up_to_the_longest_and_then_the_process_is_given_up() -> None:
    probes: list[float] = []
    hopeless = threading.Event()

    def fail(_: list[str]) -> None:
        probes.append(time.monotonic())
        if len(probes) == 6:
            return
        raise RuntimeError

    breaker = Breaker("fake", base_seconds=0.05, max_seconds=0.2)
    breaker.when_hopeless = hopeless.set
    began = time.monotonic()
    breaker.open("x", fail)
    assert breaker.wait_closed(10)
    waits = [after - before for before, after in zip([began, *probes], probes, strict=False)]
    for wait, least in zip(waits, [0.05, 0.1, 0.2, 0.2, 0.2, 0.2], strict=True):
        assert least <= wait < least + 0.5
    assert hopeless.is_set()


def test_worker_with_a_broken_encoder_has_no_slots_and_says_why(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, "one")
    workshop.announce(slots=8)
    identity_row = "SELECT slots, problem FROM memory_system.workers"
    workshop.announce(slots=8, problem="the encoder fails for every text (x)")
    assert sql(identity_row) == [(0, "the encoder fails for every text (x)")]
    assert workshop.queue.claim() == []
    workshop.announce(slots=8)
    assert sql(identity_row) == [(8, None)]
    assert len(workshop.queue.claim()) == 1


def test_breaker_of_a_model_out_of_use_probes_no_more_and_opens_no_more() -> None:
    probes: list[float] = []

    def fail(_: list[str]) -> None:
        probes.append(time.monotonic())
        raise RuntimeError

    breaker = Breaker("fake", base_seconds=0.05, max_seconds=0.05)
    breaker.open("x", fail)
    assert breaker.problem == "the encoder fails for every text (x)"
    breaker.stop()
    assert breaker.wait_closed(0)
    assert breaker.problem is None
    made = len(probes)
    breaker.open("x", fail)  # By a batch that was still running.
    time.sleep(0.3)
    assert len(probes) <= made + 1, "a probe under way may end, but none may follow"


def test_breaker_stopped_during_a_probe_tells_nobody_how_it_went() -> None:
    told: list[str] = []
    ended = threading.Event()

    def fail(_: list[str]) -> None:
        breaker.stop()
        ended.set()
        raise RuntimeError

    breaker = Breaker("fake", base_seconds=0.05, max_seconds=0.05)
    breaker.open("x", fail)
    breaker.when_hopeless = lambda: told.append("hopeless")
    assert ended.wait(5)
    time.sleep(0.2)
    assert told == []
