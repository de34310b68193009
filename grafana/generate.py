"""Writes grafana/dashboards: `python -m grafana.generate`."""

import json
from pathlib import Path

from grafana import overview, queue
from grafana.panels import Json

FOLDER = Path(__file__).resolve().parent / "dashboards"


def dashboards() -> dict[str, Json]:
    """Return every dashboard by its uid, which is the name of its file."""
    titles = {overview.UID: overview.TITLE, queue.UID: queue.TITLE}
    built = (overview, queue)
    return {module.UID: module.build({uid: title for uid, title in titles.items() if uid != module.UID}) for module in built}


def render(dashboard: Json) -> str:
    """Return a dashboard as its file has it."""
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every file."""
    FOLDER.mkdir(exist_ok=True)
    for uid, dashboard in dashboards().items():
        (FOLDER / f"{uid}.json").write_text(render(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
