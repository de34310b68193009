"""The fault suite's fixtures: a world for each broker, pytest-celery's clusters over its processes, and a case for each test."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import kombu.pools
import pytest
from celery import Celery
from pytest_celery import CeleryBrokerCluster, CeleryTestSetup, CeleryWorkerCluster

from tests.factories import rabbitmq
from tests.factories.processes import stop_all
from tests.faults.case import Case, Outcome
from tests.faults.nodes import BrokerContainer, BrokerNode, WorkerNode
from tests.faults.report import write_run
from tests.faults.world import PROFILES, World

_HERE = Path(__file__).parent
_OUTCOMES: list[Outcome] = []
_PUBLISHED_SETTINGS = (
    "lease_seconds",
    "heartbeat_seconds",
    "reaper_seconds",
    "task_time_limit_seconds",
    "retry_base_seconds",
    "max_attempts",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults",
        choices=("short", "quick", "full"),
        default="short",
        help="short: some cases; quick: every case with short times and a fake encoder; full: every case as production runs",
    )
    parser.addoption("--faults-report", default=None, help="folder of the fault suite's report; a temporary one if it is not given")


def _profile(config: pytest.Config) -> str:
    # When pytest is started on another folder, this file is read after the command line.
    return str(config.getoption("--faults", default="short"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "short: a case of the fault suite's short form too")
    config.addinivalue_line("markers", "real_model: a case of the fault suite that spoils what the real model gives")
    config.addinivalue_line(
        "markers", "brokers(*names): the brokers that a case of the fault suite's full form runs on; redis alone if absent"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("brokers")
    brokers = mark.args if mark and _profile(metafunc.config) != "short" else ("redis",)
    metafunc.parametrize("world", brokers, indirect=True, scope="package")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    profile = _profile(config)
    left_out = [item for item in items if _HERE in item.path.parents and _is_left_out(item, profile)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _is_left_out(item: pytest.Item, profile: str) -> bool:
    """Return whether a profile does not have the case: short has what is marked so, and a fake encoder has no output to spoil."""
    if profile == "short":
        return _needs_world(item) and not item.get_closest_marker("short")
    return PROFILES[profile].encoder == "fake" and item.get_closest_marker("real_model") is not None


def _needs_world(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and "world" in item.fixturenames


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not _OUTCOMES:
        return
    given = config.getoption("--faults-report", default=None)
    profile = PROFILES[_profile(config)]
    if given is None and profile.name == "short":
        return
    settings = {name: profile.settings.get(name, "production's") for name in _PUBLISHED_SETTINGS}
    folder = write_run(_OUTCOMES, Path(given or tempfile.mkdtemp(prefix="nexus-faults-report-")), profile.name, settings)
    terminalreporter.write_line(f"fault suite: {len(_OUTCOMES)} cases, report in {folder}")


@pytest.fixture(scope="package")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Servers and processes of one broker, for all of its cases."""
    if request.param != "redis":
        # The full form is what is published: a broker left out in silence would be a claim without proof.
        rabbitmq.require(always=_profile(request.config) == "full")
    made = World(request.param, PROFILES[_profile(request.config)])
    try:
        made.start()
        yield made
    finally:
        made.stop()
        stop_all()


@pytest.fixture
def celery_broker(world: World) -> BrokerNode:
    """The broker, as pytest-celery's node."""
    # A connection pooled from an earlier broker would be taken for one of this.
    kombu.pools.reset()  # type: ignore[no-untyped-call]
    return BrokerNode(BrokerContainer(world.broker, world.settings.broker_dsn))


@pytest.fixture
def celery_broker_cluster(celery_broker: BrokerNode) -> CeleryBrokerCluster:
    """The one broker."""
    return CeleryBrokerCluster(celery_broker)


@pytest.fixture
def celery_backend_cluster() -> None:
    """No result is stored anywhere."""


@pytest.fixture
def celery_worker(world: World) -> WorkerNode:
    """The first worker."""
    world.make_whole()
    return world.workers[0]


@pytest.fixture
def celery_worker_cluster(world: World, celery_worker: WorkerNode) -> CeleryWorkerCluster:
    """Every worker of the world; each has said that it is ready."""
    return CeleryWorkerCluster(celery_worker, *world.workers[1:])


@pytest.fixture
def celery_setup_app(world: World, celery_setup_config: dict[str, object]) -> Iterator[Celery]:
    """A client of the broker, for the test itself; it does not become the process's current application."""
    application = Celery("fault-suite", set_as_current=False)
    application.config_from_object(celery_setup_config)
    if world.settings.broker_is_rabbitmq:
        # Whoever declares a queue must say the same as the service does.
        application.conf.update(task_default_queue_type="quorum", task_create_missing_queue_type="quorum")
    yield application
    application.close()
    kombu.pools.reset()  # type: ignore[no-untyped-call]


@pytest.fixture
def case(request: pytest.FixtureRequest, world: World, celery_setup: CeleryTestSetup) -> Iterator[Case]:
    """One case; whatever it leaves broken is put right before the next."""
    assert celery_setup.ready()
    made = Case(request.node.originalname, world)
    # The broker comes first in a test's id, and has a column of its own.
    parameters = request.node.callspec.id.partition("-")[2]
    made.outcome.case += f", {parameters}" if parameters else ""
    yield made
    _OUTCOMES.append(made.outcome)
    made.close()
    if not made.outcome.passed:
        world.start_afresh()
