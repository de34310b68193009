"""A dashboard as a whole: rows of panels, each at its place, links, and what is marked on the axis of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana.panels import COLUMNS, CRITICAL, RUNBOOKS, SOURCE, Json, Panel, link


@dataclass(frozen=True, slots=True)
class Row:
    """A question, and the panels that answer it, from left to right and down."""

    question: str
    panels: Sequence[Panel]


def dashboard(uid: str, title: str, text: str, *, others: Mapping[str, str], runbooks: Sequence[str], rows: Sequence[Row]) -> Json:
    """Return a whole dashboard.

    Args:
        uid: A part of its address, which others link to.
        title: Its name.
        text: What it answers.
        others: Titles of other dashboards by their uid.
        runbooks: Of docs/runbooks, without `.md`.
        rows: In the order in which one asks.
    """
    links = [link(name, f"/d/{other}") for other, name in others.items()]
    links += [link(name, f"{RUNBOOKS}{name}.md") for name in runbooks]
    return {
        "uid": uid,
        "title": title,
        "description": text,
        "tags": ["nexus"],
        "schemaVersion": 42,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "refresh": "30s",
        "links": links,
        "templating": {"list": []},
        "annotations": {"list": [_FIRING]},
        "panels": _placed(rows),
    }


_FIRING: Json = {
    "name": "Alerts",
    "enable": True,
    "hide": False,
    "iconColor": CRITICAL,
    "datasource": SOURCE,
    "target": {"refId": "Anno", "datasource": SOURCE, "expr": 'ALERTS{alertstate="firing"}', "interval": "15s"},
    "titleFormat": "{{alertname}}",
    "textFormat": "{{severity}}",
    "tagKeys": "severity",
}


def _placed(rows: Sequence[Row]) -> list[Json]:
    """Return rows and panels one below the other, each numbered by its place."""
    placed: list[Json] = []
    x = y = height = 0
    for row in rows:
        y, x, height = y + height, 0, 0
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        placed.append({"id": len(placed) + 1, "type": "row", "title": row.question, "collapsed": False, "gridPos": place, "panels": []})
        y += 1
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                y, x, height = y + height, 0, 0
            placed.append(panel.render(len(placed) + 1, x, y))
            x, height = x + panel.width, max(height, panel.height)
    return placed
