"""A real Prometheus and a real Alertmanager over a running stack, with the shipped rules in a hurry, and somebody who is told."""

import http.server
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

from app.stack import ports
from app.stack.layout import PROJECT_ROOT, Layout
from tests.factories.processes import LocalProcess, wait_until

PROMETHEUS, ALERTMANAGER = shutil.which("prometheus"), shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")

needs_prometheus = pytest.mark.skipif(
    (PROMETHEUS is None or ALERTMANAGER is None) and os.environ.get("NEXUS_REQUIRE_PROMETHEUS") != "1",
    reason="Prometheus or Alertmanager is not installed (apt-get install prometheus prometheus-alertmanager)",
)

_COMPOSE = PROJECT_ROOT / "compose"
_HASTE = {"5m": "15s", "1h": "15s"}
"""What ranges of rules become: long enough for ten scrapes."""

_FOR = "2s"


class _Receiver(http.server.BaseHTTPRequestHandler):
    """Takes what Alertmanager's webhook sends."""

    told: "set[tuple[str, str]]"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.told |= {(alert["labels"]["alertname"], alert["status"]) for alert in body["alerts"]}
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Watchtower:
    """Prometheus scraping a stack each second, by the configuration that the stack wrote, and Alertmanager behind it.

    Args:
        layout: Of the running stack.
        folder: Where both keep what they keep.
        exporter_port: Where celery-exporter answers, which the stack knows nothing of.

    Attributes:
        told: (alert, 'firing' or 'resolved') of every notification that the receiver was sent.
    """

    def __init__(self, layout: Layout, folder: Path, exporter_port: int) -> None:
        assert PROMETHEUS is not None and ALERTMANAGER is not None, "Prometheus and Alertmanager are required and not installed"
        self.told: set[tuple[str, str]] = set()
        exporter = [{"targets": [f"127.0.0.1:{exporter_port}"]}]
        # At each scrape it asks the workers what they do and waits for their answers, two seconds in all.
        self._exporter = {"job_name": "celery-exporter", "scrape_interval": "5s", "scrape_timeout": "5s", "static_configs": exporter}
        self._receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Receiver", (_Receiver,), {"told": self.told}))
        self._ports = {name: ports.choose(0) for name in ("prometheus", "alertmanager")}
        for name, port in self._ports.items():
            (layout.prometheus / f"targets-{name}.json").write_text(json.dumps([{"targets": [f"127.0.0.1:{port}"]}]))
        self.rules = hurried_rules(folder / "rules.yml")
        self._client = httpx.Client(timeout=10, trust_env=False)
        self._processes = [
            LocalProcess("alertmanager", self._alertmanager(folder), folder, {}),
            LocalProcess("prometheus", self._prometheus(layout, folder), folder, {}),
        ]

    def _alertmanager(self, folder: Path) -> list[str]:
        """Write its configuration, the shipped one with this receiver and without pauses, and return its command."""
        configuration = yaml.safe_load((_COMPOSE / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8"))
        configuration["route"] |= {"group_wait": "0s", "group_interval": "1s"}
        url = f"http://127.0.0.1:{self._receiver.server_port}/"
        configuration["receivers"][0]["webhook_configs"] = [{"url": url, "send_resolved": True}]
        file = folder / "alertmanager.yml"
        file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        listen = f"--web.listen-address=127.0.0.1:{self._ports['alertmanager']}"
        return [str(ALERTMANAGER), f"--config.file={file}", f"--storage.path={folder / 'alerts'}", listen, "--cluster.listen-address="]

    def _prometheus(self, layout: Layout, folder: Path) -> list[str]:
        """Write its configuration, the stack's with these rules, an interval of a second and this Alertmanager; return its command."""
        configuration = yaml.safe_load((layout.prometheus / "prometheus.yml").read_text(encoding="utf-8"))
        configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(folder / "rules.yml")]
        configuration["scrape_configs"].append(self._exporter)
        configuration["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{self._ports['alertmanager']}"]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        listen = f"--web.listen-address=127.0.0.1:{self._ports['prometheus']}"
        return [str(PROMETHEUS), f"--config.file={file}", f"--storage.tsdb.path={folder / 'series'}", listen]

    def start(self) -> None:
        """Start all three and return once they answer."""
        threading.Thread(target=self._receiver.serve_forever, name="receiver", daemon=True).start()
        for process in self._processes:
            process.start()
        for process in self._processes:
            wait_until(lambda name=process.name: self._answers(name), 30, lambda p=process: p.logs().decode()[-2000:])  # type: ignore[misc]

    def stop(self) -> None:
        """Stop them."""
        for process in self._processes:
            process.stop()
        self._receiver.shutdown()
        self._receiver.server_close()
        self._client.close()

    def _answers(self, name: str) -> bool:
        try:
            return self._client.get(f"http://127.0.0.1:{self._ports[name]}/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        return self._ask("query", query=expression)

    def over_time(self, expression: str, seconds: float, step: float) -> list[dict[str, Any]]:
        """Return the series of a query over the last seconds, as a panel asks for them."""
        now = time.time()
        return self._ask("query_range", query=expression, start=str(now - seconds), end=str(now), step=f"{step}s")

    def _ask(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        answer = self._client.post(f"http://127.0.0.1:{self._ports['prometheus']}/api/v1/{what}", data=parameters).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        """Return the value of an instant query of one series."""
        (series,) = self.query(expression)
        return float(series["value"][1])

    def up(self) -> dict[str, list[str]]:
        """Return by job whether each target answered its last scrape, '1' or '0'."""
        targets: dict[str, list[str]] = {}
        for series in self.query("up"):
            targets.setdefault(series["metric"]["job"], []).append(series["value"][1])
        return targets

    def firing(self) -> set[str]:
        """Return the alerts that Alertmanager has now, inhibited ones too."""
        return {alert["labels"]["alertname"] for alert in self._client.get(self._alerts).json()}

    @property
    def _alerts(self) -> str:
        return f"http://127.0.0.1:{self._ports['alertmanager']}/api/v2/alerts"

    def seconds_until(self, alerts: Collection[str], status: str, seconds: float) -> dict[str, float]:
        """Return after how long each alert fired, or was resolved, as Alertmanager's API has it; its receiver must have been told too.

        Args:
            alerts: Which.
            status: 'firing' or 'resolved'.
            seconds: How long to wait.
        """
        started, seen = time.monotonic(), dict[str, float]()

        def all_are() -> bool:
            firing = self.firing()
            for alert in alerts:
                if (alert in firing) == (status == "firing"):
                    seen.setdefault(alert, round(time.monotonic() - started, 1))
                else:
                    # It came and went: what counts is that it stays.
                    seen.pop(alert, None)
            return seen.keys() == set(alerts) and {(alert, status) for alert in alerts} <= self.told

        wait_until(all_are, seconds, lambda: f"{status}: {sorted(set(alerts) - seen.keys())}; firing {self.firing()}", every=0.2)
        return seen


def hurried_rules(file: Path) -> list[dict[str, Any]]:
    """Write the shipped rules with shorter waits and ranges, and return them; what is compared with what stays as it is."""
    shipped = yaml.safe_load((_COMPOSE / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    for rule in shipped["groups"][0]["rules"]:
        rule["for"] = _FOR
        rule["expr"] = re.sub(r"\[(\w+)\]", lambda found: f"[{_HASTE[found[1]]}]", rule["expr"])
    file.write_text(yaml.safe_dump(shipped, sort_keys=False), encoding="utf-8")
    rules: list[dict[str, Any]] = shipped["groups"][0]["rules"]
    return rules
