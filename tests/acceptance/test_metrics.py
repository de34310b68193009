"""What a live stack's processes expose is what is declared, and it counts what was done."""

from collections import defaultdict
from collections.abc import Iterable

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from app.observability.metrics import DECLARED, Source
from app.stack.programs import metrics_ports
from tests.acceptance.conftest import RunningStack
from tests.acceptance.test_main_path import wait_until_embedded
from tests.factories.processes import wait_until


def exposed(url: str) -> dict[str, Metric]:
    """Return the metrics at an address, by their names as Prometheus stores them."""
    text = httpx.get(url, timeout=10, trust_env=False).raise_for_status().text
    families = list(text_string_to_metric_families(text))
    return {family.name + "_total" * (family.type == "counter"): family for family in families}


def own(stack: RunningStack, role: str) -> list[dict[str, Metric]]:
    """Return what the dispatcher, or each worker, exposes at its own port."""
    ports = metrics_ports(stack.settings)
    return [exposed(f"http://127.0.0.1:{port}/metrics") for name, port in ports.items() if name.startswith(role)]


def total(found: Iterable[dict[str, Metric]], name: str, **labels: str) -> float:
    """Return the sum of a metric's samples with these labels."""
    return sum(
        sample.value
        for metrics in found
        for sample in metrics[name].samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def check(found: dict[str, Metric], *sources: Source) -> None:
    declared = {metric.name: metric for metric in DECLARED if set(sources) & set(metric.sources)}
    assert found.keys() == declared.keys()
    for name, family in found.items():
        assert (family.type, family.documentation) == (declared[name].kind, declared[name].help), name
        labels = {frozenset(sample.labels.keys() - {"le"}) for sample in family.samples}
        assert labels <= {frozenset(declared[name].labels)}, name


def test_every_process_exposes_what_is_declared_and_nothing_else(stack: RunningStack) -> None:
    with stack.client("metrics") as client:
        client.get("/memory/episodic/recent").raise_for_status()
    api = exposed(f"{stack.base_url}/metrics")
    check(api, "api", "database")
    # Without samples at first: what has not happened yet, and no agent here is large enough for the index.
    without = {name for name, family in api.items() if not family.samples}
    assert without <= {"ann_recall_at_10", "reconciliation_drift_found_total", "reconciliation_drift_repaired_total"} | {
        "reconciliation_last_success_timestamp_seconds"
    }
    # The stack is ready with its first worker; the others load their model still.
    wait_until(
        lambda: all(worker["nexus_process_heartbeat_timestamp_seconds"].samples for worker in own(stack, "worker")), 90, "heartbeats"
    )
    (dispatcher,), workers = own(stack, "dispatcher"), own(stack, "worker")
    check(dispatcher, "dispatcher")
    assert len(workers) == stack.settings.worker_replicas
    for worker in workers:
        check(worker, "worker")
    for process in (dispatcher, *workers):
        assert [name for name, family in process.items() if not family.samples] == []


def test_processes_count_what_they_did(stack: RunningStack) -> None:
    def counts() -> dict[str, float]:
        dispatchers, workers, api = own(stack, "dispatcher"), own(stack, "worker"), [exposed(f"{stack.base_url}/metrics")]
        seen = defaultdict[str, float](float)
        seen["sent"] = total(dispatchers, "embeddings_dispatched_rows_total")
        seen["messages"] = total(dispatchers, "embeddings_dispatched_batches_total")
        seen["done"] = total(workers, "embeddings_worker_rows_total", outcome="done")
        seen["batches"] = total(workers, "embeddings_worker_batches_total", outcome="ended")
        seen["finished"] = total(api, "embeddings_processed_total", target_kind="episodic")
        return seen

    before = counts()
    with stack.client("metrics") as client:
        client.post("/memory/actions", json={"items": [{"content": f"number {number}"} for number in range(40)]}).raise_for_status()
        wait_until_embedded(client)
    after = counts()
    assert {name: after[name] - before[name] for name in ("sent", "done", "finished")} == {"sent": 40, "done": 40, "finished": 40}
    assert after["batches"] - before["batches"] == after["messages"] - before["messages"] >= 2
    for worker in own(stack, "worker"):
        # The model is in the child.
        assert total([worker], "nexus_process_resident_memory_bytes", part="children") > 200 * 2**20
        heard = total([worker], "nexus_process_heartbeat_timestamp_seconds")
        assert heard > total([worker], "nexus_process_start_timestamp_seconds")
