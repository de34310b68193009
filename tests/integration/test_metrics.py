"""However much nonsense is sent, the series of the API's /metrics stay few, and nothing of it stands there."""

import random
import re
import string
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from app.bootstrap import Services
from app.observability.metrics import DECLARED
from tests.factories.workshop import Workshop, store

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER"}
MOST_SERIES = 3_000
MARK = "zzz"
"""In everything that is made up here."""


def series(client: FlaskClient) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    text = client.get("/metrics").get_data(as_text=True)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))) for family in text_string_to_metric_families(text) for sample in family.samples
    }


def made_up(dice: random.Random) -> str:
    return MARK + "".join(dice.choices(string.ascii_lowercase, k=dice.randint(1, 20)))


def flood(client: FlaskClient, services: Services, workshop: Workshop, seed: int) -> None:
    """Send what nobody foresaw, differently for each seed, and let rows die of errors that nobody knows."""
    dice = random.Random(seed)
    places = ["", "memory/", "memory/episodic/", "memory/working/", "agents/", "queue/dead?cause=", "metrics/", "docs/"]
    for _ in range(60):
        path = f"/{dice.choice(places)}{made_up(dice)}"
        method = dice.choice([*sorted(METHODS - {"OTHER"}), made_up(dice).upper(), "BREW"])
        headers = {"X-Agent-Id": made_up(dice), "User-Agent": made_up(dice), "X-Request-ID": made_up(dice), "Host": made_up(dice)}
        client.open(path, method=method, headers=headers)
        client.post("/memory/action", json={"content": made_up(dice), "agent_id": made_up(dice), "action_type": made_up(dice)})
    store(services, 5)
    for batch in workshop.claim():
        workshop.embedding._start(batch.claim)
        workshop.queue.release_crashed(batch.claim, f"{made_up(dice)}: {made_up(dice)}")
    workshop.drain()


@pytest.fixture
def one_attempt(workshop: Workshop) -> Iterator[None]:
    """Rows die of their first failure."""
    settings = workshop.queue._settings
    workshop.queue._settings = settings.model_copy(update={"max_attempts": 1})
    yield
    workshop.queue._settings = settings


@pytest.mark.usefixtures("one_attempt")
def test_series_stay_few_whatever_is_sent(client: FlaskClient, services: Services, workshop: Workshop) -> None:
    for seed in range(4):
        flood(client, services, workshop, seed)
    before = series(client)
    for seed in range(4, 8):
        flood(client, services, workshop, seed)
    after = series(client)
    # Not one more, but for a pair of route and status that the first floods happened to miss.
    assert len(after - before) <= len(before) * 0.1
    assert len(after) < MOST_SERIES
    dead = services.queue_status.tallies().dead
    assert dead["other"] == sum(dead.values()) >= 40
    assert MARK not in client.get("/metrics").get_data(as_text=True).lower()


def test_every_label_has_a_value_that_was_foreseen(client: FlaskClient, services: Services, workshop: Workshop) -> None:
    flood(client, services, workshop, 99)
    rules = {rule.rule for rule in client.application.url_map.iter_rules()} | {"(unmatched)"}
    declared = {metric.name: set(metric.labels) for metric in DECLARED if metric.sources[0] in {"api", "database"}}
    for name, labels in series(client):
        values = dict(labels)
        family = name if name in declared else re.sub(r"_(bucket|sum|count)$", "", name)
        if family not in declared:
            # prometheus_client's own, of a process that shares its counters with no other, as here.
            assert name.endswith("_created") or name.startswith(("process_", "python_")), name
            continue
        assert values.keys() - {"le"} == declared[family], name
        if family.startswith("api_"):
            assert values["method"] in METHODS
            assert values["url_rule"] in rules
