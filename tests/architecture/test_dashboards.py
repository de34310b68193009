"""Grafana's dashboards: as they are generated, as Grafana's schema has them, on metrics that exist, with the lines where alerts fire."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

from app.observability.metrics import DECLARED
from grafana import generate
from tests.architecture.test_alerts import RULES, check_commands, needs_promtool, promtool
from tests.factories import compose
from tests.factories.dashboards import DASHBOARDS, SCRAPED_FROM_OTHERS, Json, every_query, panels, with_values
from tests.factories.documents import ROOT

SCHEMA_FILE = Path(__file__).with_name("grafana-12.4.4.schema.json")
SCHEMA = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
KINDS = {"stat": "Stat", "timeseries": "TimeSeries", "table": "Table", "row": "Row"}
each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=list(DASHBOARDS))


def faults(dashboard: Json) -> list[str]:
    """Return what Grafana's schema has against a dashboard, panel by panel, for a union of kinds says only that none fits."""
    whole = SCHEMA["definitions"]["NexusDashboard"]
    parts = [(dashboard | {"panels": []}, whole), *((panel, SCHEMA["definitions"][KINDS[panel["type"]]]) for panel in dashboard["panels"])]
    found = []
    for part, schema in parts:
        validator = jsonschema.Draft7Validator(schema | {"definitions": SCHEMA["definitions"]})
        found += [f"{part['title']}: {list(error.path)}: {error.message}" for error in validator.iter_errors(part)]
    return found


@each_dashboard
def test_dashboard_is_as_the_schema_of_the_pinned_grafana_has_it(dashboard: Json) -> None:
    assert faults(dashboard) == []


def test_schema_is_that_of_the_grafana_that_is_run() -> None:
    image = compose.load()["services"]["grafana"]["image"]
    assert SCHEMA_FILE.name == f"grafana-{image.rpartition(':')[2]}.schema.json"


@pytest.mark.parametrize(
    "wrong",
    [
        {"fieldConfig": {"defaults": {"unitt": "s"}, "overrides": []}},
        {"gridPos": {"x": 0, "y": 0, "w": 8}},
        {"targets": [{"expr": "up"}]},
        {"type": "row"},
        {"options": {}},
        {"repeatPanel": True},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_worse_panel_is_noticed(wrong: Json) -> None:
    dashboard = DASHBOARDS["nexus-queue"]
    worse = [panel | wrong if place == 1 else panel for place, panel in enumerate(dashboard["panels"])]
    assert faults(dashboard | {"panels": worse}) != []


def test_files_are_those_that_are_generated() -> None:
    generated = {f"{uid}.json": generate.render(dashboard) for uid, dashboard in generate.dashboards().items()}
    written = {file.name: file.read_text(encoding="utf-8") for file in generate.FOLDER.iterdir()}
    assert written.keys() == generated.keys()
    for name, text in generated.items():
        assert written[name] == text, f"{name}: `python -m grafana.generate` writes it anew"


def test_the_two_dashboards_are_there_and_lead_to_each_other() -> None:
    titles = {uid: dashboard["title"] for uid, dashboard in DASHBOARDS.items()}
    assert titles == {"nexus-overview": "NEXUS Cerebro Overview", "nexus-queue": "Queue and workers"}
    for uid, dashboard in DASHBOARDS.items():
        assert dashboard["uid"] == uid
        assert {f"/d/{other}" for other in titles if other != uid} <= {link["url"] for link in dashboard["links"]}


@each_dashboard
def test_panels_have_a_place_and_a_number_of_their_own(dashboard: Json) -> None:
    placed = dashboard["panels"]
    assert max(Counter(panel["id"] for panel in placed).values()) == 1
    assert max(Counter(panel["title"] for panel in placed).values()) == 1
    for one, other in combinations((panel["gridPos"] for panel in placed), 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)
    for panel in placed:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@each_dashboard
def test_every_panel_says_what_good_is_and_what_to_do(dashboard: Json) -> None:
    for panel in panels(dashboard):
        name, good = panel["title"].rsplit(": ", 1)
        assert name and good, panel["title"]
        # What fits a panel's head, at about eight characters a column.
        assert len(panel["title"]) <= 8 * panel["gridPos"]["w"] - 2, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@each_dashboard
def test_colours_are_few(dashboard: Json) -> None:
    text = json.dumps(dashboard)
    named = set(re.findall(r'"(?:color|fixedColor|iconColor)": "([\w#-]+)"', text))
    assert named <= {"green", "orange", "red", "blue", "purple", "yellow", "text"}


@each_dashboard
def test_every_query_asks_the_provisioned_source(dashboard: Json) -> None:
    sources = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))["datasources"]
    known = {(source["type"], source["uid"]) for source in sources}
    asked = set(re.findall(r'"datasource": \{"type": "(\w+)", "uid": "(\w+)"\}', json.dumps(dashboard)))
    assert asked
    assert asked <= known


def names(expression: str) -> set[str]:
    """Return the metrics that an expression reads."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\b(?:by|on|without|ignoring|group_left)\s*\([^)]*\)", "", bare)
    words = re.findall(r"\b(?<!\$)([A-Za-z_]\w*)\b(?!\s*\()(?=\{|\[|\)|\s|$)", bare)
    return set(words) - {"or", "and", "unless", "by", "on", "offset"}


def test_queries_read_metrics_that_exist_and_every_metric_is_shown() -> None:
    exposed = {f"{metric.name}{end}" for metric in DECLARED for end in (("_bucket", "_count", "_sum") if metric.buckets else ("",))}
    read = {name for query in every_query() for name in names(query.expression)}
    assert read - exposed - SCRAPED_FROM_OTHERS == set()
    assert read >= SCRAPED_FROM_OTHERS
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) if name in exposed else name for name in read}
    assert {metric.name for metric in DECLARED} - shown == set()


def test_readings_of_postgresql_are_joined_and_never_added() -> None:
    """Every instance of the API says the same of it."""
    database = "|".join(metric.name for metric in DECLARED if "database" in metric.sources)
    for query in every_query():
        for found in re.finditer(rf"\b({database})\b", query.expression):
            before = query.expression[: found.start()]
            joined = re.search(r"\b(?:max|min)(?: by \([^)]*\) )?\((?:abs\()?(?:rate\(|increase\(|last_over_time\()?$", before)
            assert joined, (query.panel, query.expression)


@needs_promtool
def test_every_expression_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": with_values(query.expression)} for number, query in enumerate(every_query())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
    broken = yaml.safe_load(file.read_text(encoding="utf-8"))
    broken["groups"][0]["rules"][0]["expr"] = "sum(rate(up[5m])"
    file.write_text(yaml.safe_dump(broken), encoding="utf-8")
    assert promtool("check", "rules", str(file)).returncode != 0


def steps(panel: Json) -> list[float]:
    """Return from which values on a panel's colour changes."""
    return [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]]


def shown(rule: Json) -> Iterator[Json]:
    """Return the panels that show what an alert looks at, as it looks at it."""
    expression = re.sub(r" (?:[<>]|==) [\d.]+(?: (?:or|unless) .+)?$", "", rule["expr"])
    assert expression != rule["expr"]
    for dashboard in DASHBOARDS.values():
        yield from (panel for panel in panels(dashboard) if expression in {target["expr"] for target in panel["targets"]})


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_alert_has_a_panel_with_its_line(rule: dict[str, Any]) -> None:
    operator, bound = re.findall(r"([<>]|==) ([\d.]+)", rule["expr"])[0]
    # Grafana colours from a value on: where any is too many, and where none is too few, from the first on.
    expected = 1.0 if (operator, float(bound)) in ((">", 0.0), ("==", 0.0)) else float(bound)
    with_it = [panel for panel in shown(rule) if f"Alert {rule['alert']} (" in panel["description"]]
    assert with_it
    for panel in with_it:
        assert steps(panel) == [expected], panel["title"]
        bad = {"critical": "red", "warning": "orange"}[rule["labels"]["severity"]]
        colours = [step["color"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert colours == (["green", bad] if operator == ">" else [bad, "green"]), panel["title"]
        assert rule["annotations"]["action"] in panel["description"]
        assert f"for {rule['for']}" in panel["description"]


def test_no_panel_has_a_line_that_is_no_alerts() -> None:
    for dashboard in DASHBOARDS.values():
        for panel in panels(dashboard):
            if "Alert " not in panel["description"]:
                assert steps(panel) in ([], [1]), panel["title"]


def test_links_lead_to_documents_that_grafana_serves() -> None:
    mounts = dict(str(mount).split(":")[:2] for mount in compose.load()["services"]["grafana"]["volumes"])
    assert mounts["../docs"] == "/usr/share/grafana/public/docs"
    linked = set(re.findall(r'"url": "/public/(docs/[^"]+)"', json.dumps(list(DASHBOARDS.values()))))
    assert {Path(path).stem for path in linked} >= {"embeddings-stuck", "scale-workers", "replay-dead-rows", "backfill", "restore"}
    assert [path for path in sorted(linked) if not (ROOT / path).is_file()] == []


def test_commands_that_panels_name_exist() -> None:
    check_commands(json.dumps(list(DASHBOARDS.values())))
