"""Grafana's panels and dashboards as dictionaries, with the choices that all of ours share: colours, legends, scales, places."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana.alerts import Alert, alerts

Json = dict[str, Any]

SOURCE: Json = {"type": "prometheus", "uid": "prometheus"}
"""As grafana/provisioning/datasources names it."""

GOOD, WARNING, CRITICAL, FIRST, SECOND, THIRD = "green", "orange", "red", "blue", "purple", "yellow"
"""The only colours; what has more series than these are for takes its colours from Grafana's palette."""

RUNBOOKS = "/public/docs/runbooks/"
"""compose/docker-compose.yml mounts docs/ among the files that Grafana serves."""

COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Query:
    """One expression, what its series are called, and the colour of the series by that name (none: of the palette)."""

    expression: str
    legend: str = ""
    colour: str | None = None
    instant: bool = False

    def target(self, number: int, table: bool) -> Json:
        """Return it as the query of that number of a panel."""
        return {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": self.expression,
            "legendFormat": self.legend or "__auto",
            "format": "table" if table else "time_series",
            "instant": self.instant,
            "range": not self.instant,
        }


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel without its place.

    Attributes:
        title: Names what is shown, and says what good looks like.
        text: What it means and what to do when it is not good.
        body: What is of its type: `type`, `options`, `fieldConfig`.
        runbook: Of docs/runbooks, without `.md`.
    """

    title: str
    text: str
    queries: Sequence[Query]
    body: Json
    width: int
    height: int
    runbook: str | None = None

    def render(self, number: int, x: int, y: int) -> Json:
        """Return it at a place."""
        table = self.body["type"] == "table"
        links = [link(f"Runbook: {self.runbook}", f"{RUNBOOKS}{self.runbook}.md")] if self.runbook else []
        return {
            "id": number,
            "title": self.title,
            "description": self.text,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [query.target(place, table) for place, query in enumerate(self.queries)],
            "links": links,
            **self.body,
        }


def link(title: str, url: str) -> Json:
    """Return a link to a runbook, opened beside, or to another dashboard, for the same time."""
    return {
        "title": title,
        "url": url,
        "type": "link",
        "icon": "doc" if url.startswith(RUNBOOKS) else "dashboard",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": not url.startswith(RUNBOOKS),
        "targetBlank": url.startswith(RUNBOOKS),
    }


@dataclass(frozen=True, slots=True)
class Scale:
    """A unit of Grafana's, and the bounds of the axis; None where the data decide.

    Attributes:
        words: What values are called instead of their number, with their colour.
        decimals: None where Grafana decides.
    """

    unit: str
    low: float | None = 0
    high: float | None = None
    words: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    decimals: int | None = None
    nothing: str = "no data"
    """What stands where there is no value."""


COUNT, RATE, SECONDS, SHARE = Scale("short", decimals=0), Scale("cps"), Scale("s"), Scale("percentunit", 0, 1)
YES_NO = {"1": ("yes", GOOD), "0": ("no", CRITICAL)}


def _steps(alert: Alert | None, flag: bool) -> list[Json]:
    """Return from which value on which colour holds: an alert's, or, of a count that should be 0, from 1 on."""
    if alert is None:
        return [{"value": None, "color": GOOD}, *([{"value": 1, "color": WARNING}] if flag else [])]
    bad = CRITICAL if alert.severity == "critical" else WARNING
    below, above = (GOOD, bad) if alert.fires_above else (bad, GOOD)
    return [{"value": None, "color": below}, {"value": alert.step, "color": above}]


def _defaults(scale: Scale, steps: list[Json], colour: str, custom: Json) -> Json:
    words = {value: {"text": text, "color": shade, "index": place} for place, (value, (text, shade)) in enumerate(scale.words.items())}
    chosen = {"min": scale.low, "max": scale.high, "decimals": scale.decimals}
    return {
        "unit": scale.unit,
        "noValue": scale.nothing,
        "color": {"mode": colour},
        "mappings": [{"type": "value", "options": words}] if words else [],
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": custom,
        **{name: value for name, value in chosen.items() if value is not None},
    }


def _text(text: str, alert: Alert | None) -> str:
    return f"{text} {alert.sentence}" if alert else text


def stat(
    title: str,
    text: str,
    scale: Scale,
    *queries: Query,
    alert: str | None = None,
    flag: bool = False,
    width: int = 4,
    height: int = 4,
    runbook: str | None = None,
    names: bool = False,
) -> Panel:
    """Return a number with its recent course; an alert's own expression when no query is given.

    Args:
        title: See Panel.
        text: See Panel; what the alert says is added.
        scale: Of the number.
        queries: One or more.
        alert: Whose bound colours it.
        flag: Whether 1 or more is a warning.
        width: In columns of 24.
        height: In Grafana's rows.
        runbook: See Panel.
        names: Whether each series' name stands by its number.
    """
    found = alerts()[alert] if alert else None
    if found and not queries:
        queries = (Query(found.expression),)
    options = {
        "colorMode": "background",
        "graphMode": "none" if scale.words or names else "area",
        "justifyMode": "center",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "value_and_name" if names else "value",
        "wideLayout": True,
    }
    defaults = _defaults(scale, _steps(found, flag), "thresholds", {})
    body = {"type": "stat", "options": options, "fieldConfig": {"defaults": defaults, "overrides": []}}
    return Panel(title, _text(text, found), queries, body, width, height, runbook)


def graph(
    title: str,
    text: str,
    scale: Scale,
    *queries: Query,
    alert: str | None = None,
    legend: str = "",
    colour: str = CRITICAL,
    stacked: bool = False,
    width: int = 8,
    runbook: str | None = None,
) -> Panel:
    """Return curves over time; an alert's own expression is the first of them, with its bound as a dashed line.

    Args:
        title: See Panel.
        text: See Panel; what the alert says is added.
        scale: Of the axis.
        queries: What is shown beside the alert's expression.
        alert: Its name.
        legend: What the curve of the alert is called.
        colour: That curve's.
        stacked: Whether the curves add up.
        width: In columns of 24.
        runbook: See Panel.
    """
    found = alerts()[alert] if alert else None
    if found:
        queries = (Query(found.expression, legend, colour), *queries)
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1 if stacked else 2,
        "fillOpacity": 30 if stacked else 8,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": False,
        "axisPlacement": "auto",
        "axisSoftMin": 0,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if found else "off"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    coloured = [(query.legend, query.colour) for query in queries if query.colour]
    overrides = [_override(name, {"color": {"mode": "fixed", "fixedColor": shade}}) for name, shade in coloured]
    defaults = _defaults(scale, _steps(found, flag=False), "palette-classic", custom)
    body = {"type": "timeseries", "options": options, "fieldConfig": {"defaults": defaults, "overrides": overrides}}
    return Panel(title, _text(text, found), queries, body, width, 8, runbook)


def _override(name: str, properties: Json) -> Json:
    changes = [{"id": key, "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byName", "options": name}, "properties": changes}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: a query's value, or a label; and its scale."""

    field: str
    title: str
    scale: Scale | None = None


def table(
    title: str, text: str, queries: Sequence[Query], columns: Sequence[Column], hidden: Sequence[str], *, width: int, height: int
) -> Panel:
    """Return a table of the series' last values, a row for each set of labels, the last column's largest first.

    Args:
        title: See Panel.
        text: See Panel.
        queries: All instant, with the same labels.
        columns: What is shown, in this order.
        hidden: Labels and values that are not.
        width: In columns of 24.
        height: In Grafana's rows.
    """
    organised = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {column.field: place for place, column in enumerate(columns)},
        "renameByName": {column.field: column.title for column in columns},
    }
    transformations = [{"id": "merge", "options": {}}, {"id": "organize", "options": organised}]
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True, "sortBy": [{"displayName": columns[-1].title, "desc": True}]}
    overrides = [
        _override(column.title, {"unit": column.scale.unit, "decimals": column.scale.decimals or 2}) for column in columns if column.scale
    ]
    custom = {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}
    defaults = _defaults(Scale("short", None, nothing="none"), _steps(None, flag=False), "fixed", custom)
    defaults["color"] = {"mode": "fixed", "fixedColor": "text"}
    body = {
        "type": "table",
        "options": options,
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "transformations": transformations,
    }
    return Panel(title, text, queries, body, width, height)
