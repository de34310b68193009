"""Metrics are declared once, documented, bounded by what they are labelled with, and never added up where several say the same."""

import re
from pathlib import Path

from app.observability import metrics
from app.observability.metrics import DECLARED, Declared

ROOT = Path(__file__).resolve().parents[2]
LABELS = {"method", "url_rule", "status", "outcome", "state", "target_kind", "cause", "kind", "drift", "part"}
"""Each has few values, whatever clients send; tests/integration/test_metrics.py sends much."""


def row(metric: Declared) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |".replace("|  |", "| |")


def test_reference_has_every_metric_as_it_is_declared_and_no_other() -> None:
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `[a-z].*$", text, flags=re.MULTILINE)
    assert sorted(documented) == sorted(map(row, DECLARED))


def test_names_say_what_they_count_and_stand_once() -> None:
    assert len({metric.name for metric in DECLARED}) == len(DECLARED) >= 25
    for metric in DECLARED:
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert (metric.kind == "histogram") == bool(metric.buckets), metric.name
        assert metric.help.endswith("."), metric.name
        assert set(metric.labels) <= LABELS, metric.name


def test_no_other_module_makes_a_metric() -> None:
    makes = re.compile(r"\b(?:Counter|Gauge|Histogram|Summary|Info|Enum|\w+MetricFamily)\(")
    own = Path(metrics.__file__)
    found = [path for path in (ROOT / "app").rglob("*.py") if path != own and makes.search(path.read_text(encoding="utf-8"))]
    using_others = {path for path in found if "prometheus_client" in path.read_text(encoding="utf-8")}
    assert using_others == set()


def test_every_metric_of_the_seeds_is_there() -> None:
    seeds = {
        "embeddings_processed_total": "counter",
        "embeddings_queue_depth": "gauge",
        "embeddings_processing_latency": "histogram",
        "embeddings_dead_total": "counter",
        "api_requests_total": "counter",
        "api_latency_seconds": "histogram",
    }
    assert seeds.items() <= {metric.name: metric.kind for metric in DECLARED}.items()
