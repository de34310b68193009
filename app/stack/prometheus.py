"""A configuration of Prometheus for the embedded stack: the shipped one, with the stack's own addresses as targets."""

import json
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

from app.config import METRICS_KEY_SECRET, Settings
from app.stack.layout import PROJECT_ROOT, Layout, write_private
from app.stack.programs import metrics_ports
from app.stack.readiness import base_url

SHIPPED = PROJECT_ROOT / "compose" / "prometheus"
_LOOPBACK = "127.0.0.1"


def targets(settings: Settings) -> dict[str, list[str]]:
    """Return the addresses of a running stack, and of Prometheus and Alertmanager at their usual ports beside it, by scrape job."""
    ports = metrics_ports(settings)
    host = settings.metrics_host
    return {
        "nexus-api": [base_url(settings.host, settings.port).removeprefix("http://")],
        "nexus-dispatcher": [f"{host}:{port}" for name, port in ports.items() if name == "dispatcher"],
        "nexus-worker": [f"{host}:{port}" for name, port in ports.items() if name != "dispatcher"],
        "flower": [f"{_LOOPBACK}:{settings.flower_port}"],
        "prometheus": [f"{_LOOPBACK}:9090"],
        "alertmanager": [f"{_LOOPBACK}:9093"],
    }


def configuration(settings: Settings, layout: Layout) -> dict[str, Any]:
    """Return the shipped configuration with its targets read from files of this DATA_DIR; a job without any is left out."""
    shipped: dict[str, Any] = yaml.safe_load((SHIPPED / "prometheus.yml").read_text(encoding="utf-8"))
    found = targets(settings)
    return shipped | {
        "rule_files": [str(SHIPPED / "rules.yml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": found["alertmanager"]}]}]},
        "scrape_configs": [_job(job, settings, layout) for job in shipped["scrape_configs"] if job["job_name"] in found],
    }


def _job(shipped: dict[str, Any], settings: Settings, layout: Layout) -> dict[str, Any]:
    job = {key: value for key, value in shipped.items() if not key.endswith("_configs")}
    if "authorization" in job:
        job["authorization"] = {"credentials_file": str(settings.secret_path(METRICS_KEY_SECRET))}
    return job | {"file_sd_configs": [{"files": [str(layout.prometheus / f"targets-{job['job_name']}.json")]}]}


def write(settings: Settings, layout: Layout) -> None:
    """Write it, and the targets, which a Prometheus that runs already reads anew by itself."""
    for job, addresses in targets(settings).items():
        write_private(layout.prometheus / f"targets-{job}.json", json.dumps([{"targets": addresses}]) + "\n")
    text = yaml.safe_dump(configuration(settings, layout), sort_keys=False)
    write_private(layout.prometheus / "prometheus.yml", "# Written at each start of the stack; see docs/reference/metrics.md.\n" + text)
