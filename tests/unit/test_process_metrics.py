"""The metrics of dispatchers and workers: where they are shown, and what becomes of a port that is busy."""

import socket
import urllib.request
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types
from structlog.testing import capture_logs

from app.config import Settings
from app.observability import process_metrics
from app.observability.process_metrics import DispatcherCounts, WorkerCounts
from app.stack import ports, prometheus
from app.stack.layout import Layout
from app.stack.programs import metrics_ports, service_programs


def test_counts_are_shown_at_the_port() -> None:
    counts, port = DispatcherCounts(), ports.choose(0)
    process_metrics.serve(counts, "127.0.0.1", port, lambda: counts.heard_at)
    counts.sent(2, 33)

    def text() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            return str(answer.read().decode())

    assert "embeddings_dispatched_rows_total 33.0" in text()
    assert "\nnexus_process_heartbeat_timestamp_seconds " not in text()
    counts.heard_at = 1.5
    assert "nexus_process_heartbeat_timestamp_seconds 1.5" in text()


def test_busy_port_is_logged_and_the_process_goes_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy, capture_logs() as logs:
        process_metrics.serve(WorkerCounts(), "127.0.0.1", busy.getsockname()[1], lambda: None)
    assert [line["event"] for line in logs] == ["metrics_not_shown"]


def test_port_zero_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_metrics, "start_http_server", lambda *_: pytest.fail("it was shown"))
    process_metrics.serve(WorkerCounts(), "127.0.0.1", 0, lambda: None)


def test_outcome_that_nobody_knows_makes_no_series() -> None:
    counts = WorkerCounts()
    counts.ended([("done", 3), ("failed", 1), ("invented", 9)])
    assert counts.rows == {"done": 3, "failed": 1, "lost": 0}


def test_each_program_has_a_port_of_its_own(tmp_path: Path) -> None:
    settings = Settings(metrics_port=9100, worker_replicas=2, worker_max=3)
    assert metrics_ports(settings) == {"dispatcher": 9100, "worker_1": 9101, "worker_2": 9102, "worker_3": 9103}
    programs = {program.name: program.environment for program in service_programs(settings, Layout(tmp_path))}
    assert [programs[f"worker_{number}"]["METRICS_PORT"] for number in (1, 2, 3)] == ["9101", "9102", "9103"]
    assert metrics_ports(Settings(metrics_port=0)) == {}


def test_ports_in_a_row_are_free_and_the_remembered_ones_are_taken_again() -> None:
    first = ports.choose_block(0, 3)
    assert ports.choose_block(first, 3) == first
    assert ports.choose_block(first, 3, frozenset({first + 2})) != first
    with socket.create_server(("127.0.0.1", first + 1)):
        assert ports.choose_block(first, 3) != first


def test_embedded_stack_is_scraped_by_the_shipped_jobs_with_addresses_of_its_own(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    settings = Settings(data_dir=tmp_path, secrets_dir=tmp_path, port=8123, metrics_port=9200, worker_replicas=2)
    prometheus.write(settings, layout)
    written = yaml.safe_load((layout.prometheus / "prometheus.yml").read_text())
    shipped = yaml.safe_load((prometheus.SHIPPED / "prometheus.yml").read_text())
    # The exporter of Celery's events is no part of the embedded stack.
    assert [job["job_name"] for job in written["scrape_configs"]] == [
        job["job_name"] for job in shipped["scrape_configs"] if job["job_name"] != "celery-exporter"
    ]
    read = {}
    for job in written["scrape_configs"]:
        (file,) = job["file_sd_configs"][0]["files"]
        read[job["job_name"]] = yaml.safe_load(Path(file).read_text())[0]["targets"]
    assert read["nexus-api"] == ["127.0.0.1:8123"]
    assert read["nexus-dispatcher"] == ["127.0.0.1:9200"]
    assert read["nexus-worker"] == ["127.0.0.1:9201", "127.0.0.1:9202"]
    assert written["scrape_configs"][0]["authorization"]["credentials_file"] == str(tmp_path / "metrics_api_key.txt")
