"""The main path over the real stack: write, found; edited, replaced; killed, still found; apart, never mixed."""

import contextlib
import json
import time
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import psutil
from numpy.typing import NDArray
from sqlalchemy import text

from tests.acceptance.conftest import RunningStack

PATIENCE_SECONDS = 90.0


def wait_until_embedded(client: httpx.Client) -> dict[str, int]:
    """Wait until nothing of the client's agent is pending, and return the queue's counts."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        counts: dict[str, int] = client.get("/stats").raise_for_status().json()["embeddings_queue"]
        if counts["pending"] == counts["processing"] == 0:
            return counts
        time.sleep(0.05)
    raise AssertionError(f"the queue did not drain: {counts}")


def search(client: httpx.Client, query: str, **body: Any) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = client.post("/memory/search", json={"query": query, **body}).raise_for_status().json()["results"]
    return results


def children_of_workers(stack: RunningStack) -> list[psutil.Process]:
    """Return the live pool children of this stack's Celery workers, which hold the models."""
    workers = [info.pid for info in stack.stack.processes() if info.name.startswith("worker") and info.pid]
    children = []
    for child in (child for pid in workers for child in psutil.Process(pid).children()):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                children.append(child)
    return children


def test_episode_is_found_by_words_at_once_and_by_meaning_when_embedded(stack: RunningStack) -> None:
    with stack.client("path-write") as client:
        client.post("/memory/action", json={"content": "Bread rises in the warm kitchen overnight."}).raise_for_status()
        receipt = client.post("/memory/action", json={"content": "The invoice of the Lisbon office was paid twice.", "actor": "Ines"})
        assert receipt.status_code == 201
        assert [hit["content"] for hit in search(client, "invoice", mode="keyword")] == ["The invoice of the Lisbon office was paid twice."]
        wait_until_embedded(client)
        best = search(client, "a bill settled two times in Portugal", mode="vector")[0]
        assert best["episode_id"] == receipt.json()["episode_id"]
        verdicts = client.post("/integrity/verify", json={"receipts": [_claim(receipt.json())]}).raise_for_status().json()
        assert verdicts["summary"] == {"searchable": 1}


def _claim(receipt: dict[str, Any]) -> dict[str, Any]:
    return {name: receipt[name] for name in ("episode_id", "seq", "version", "content_sha256", "nonce")}


def test_episode_inserted_by_plain_sql_is_embedded_too(stack: RunningStack) -> None:
    database = stack.database("nexus_app")
    with database.transaction("path-sql") as connection:
        connection.execute(
            text("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES ('path-sql', 'A heron waits by the weir.')")
        )
    database.close()
    with stack.client("path-sql") as client:
        assert wait_until_embedded(client)["done"] == 1
        assert search(client, "a bird standing near a river dam", mode="vector")[0]["content"] == "A heron waits by the weir."


def test_edit_replaces_the_vector(stack: RunningStack) -> None:
    database = stack.database("nexus_app")
    with stack.client("path-edit") as client:
        first = client.post("/memory/action", json={"content": "The cat sleeps on the radiator."}).raise_for_status().json()
        wait_until_embedded(client)
        before = _vector_hashes(stack, first["episode_id"])
        with database.transaction("path-edit") as connection:
            connection.execute(
                text("UPDATE nexus_memory.zep_episodic_memory SET content = :content WHERE episode_id = :id"),
                {"content": "Quarterly revenue fell by nine percent.", "id": first["episode_id"]},
            )
            recorded = connection.execute(text("SELECT memory_system.record_edit(:id)"), {"id": UUID(first["episode_id"])}).scalar_one()
        assert recorded
        assert search(client, "pet napping somewhere warm", mode="vector", min_score=0.3) == []
        wait_until_embedded(client)
        assert _vector_hashes(stack, first["episode_id"]) != before
        assert search(client, "the company earned less money", mode="vector")[0]["episode_id"] == first["episode_id"]
        assert client.post("/integrity/verify", json={"receipts": [_claim(first)]}).json()["summary"] == {"superseded": 1}
    database.close()


def _vector_hashes(stack: RunningStack, episode_id: str) -> list[bytes]:
    database = stack.database("nexus_worker")
    with database.transaction() as connection:
        rows = connection.execute(
            text("SELECT vector_sha256 FROM nexus_memory.episode_chunks WHERE episode_id = :id ORDER BY chunk_no"), {"id": episode_id}
        )
        hashes = [bytes(row[0]) for row in rows]
    database.close()
    return hashes


def test_child_killed_in_mid_batch_loses_nothing_and_embeds_once(stack: RunningStack) -> None:
    count = 600
    with stack.client("path-kill") as client:
        reading = "Reading {0} of the flow meter in basin {1} was {2} litres."
        items = [{"content": reading.format(number, number % 7, number * 3)} for number in range(count)]
        receipts = client.post("/memory/actions", json={"items": items}).raise_for_status().json()["items"]
        killed: set[int] = set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(killed) < 2 and time.monotonic() < deadline:
            counts = client.get("/stats").json()["embeddings_queue"]
            assert counts["pending"] or counts["processing"], "the queue drained before a child could be killed in mid batch"
            victims = [child for child in children_of_workers(stack) if child.pid not in killed]
            if counts["processing"] and victims and _any_started(stack):
                victims[0].kill()
                killed.add(victims[0].pid)
                time.sleep(0.3)
        counts = wait_until_embedded(client)
        assert counts == {"pending": 0, "processing": 0, "done": count, "dead": 0}
        verdicts = client.post("/integrity/verify", json={"receipts": [_claim(receipt) for receipt in receipts]}).json()["summary"]
        assert verdicts == {"searchable": count}
    database = stack.database("nexus_worker")
    with database.transaction() as connection:
        once = connection.execute(
            text("SELECT count(*), count(DISTINCT episode_id) FROM nexus_memory.episode_chunks WHERE agent_id = 'path-kill'")
        ).one()
        attempts = connection.execute(
            text(
                "SELECT max(retry_count), count(*) FILTER (WHERE retry_count > 1)"
                " FROM memory_system.embeddings_queue WHERE agent_id = 'path-kill'"
            )
        ).one()
    database.close()
    assert tuple(once) == (count, count)
    # A killed child charges its batch one attempt more; that some row was charged shows that the kill hit a batch.
    assert 2 <= attempts[0] <= 3
    assert attempts[1] <= 2 * stack.settings.batch_rows


def _any_started(stack: RunningStack) -> bool:
    database = stack.database("nexus_worker")
    with database.transaction() as connection:
        started = connection.execute(
            text("SELECT EXISTS (SELECT 1 FROM memory_system.embeddings_queue WHERE state = 'processing' AND started_at IS NOT NULL)")
        ).scalar_one()
    database.close()
    return bool(started)


def test_two_agents_never_see_each_other(stack: RunningStack) -> None:
    with stack.client("path-anna") as anna, stack.client("path-boris") as boris:
        secret = anna.post("/memory/action", json={"content": "The spare key lies under the third flower pot."}).raise_for_status().json()
        boris.post("/memory/action", json={"content": "The meeting moved to Thursday."}).raise_for_status()
        wait_until_embedded(anna)
        wait_until_embedded(boris)
        for mode in ("hybrid", "vector", "keyword"):
            hits = search(boris, "where is the spare key under the flower pot", mode=mode, limit=100)
            assert {hit["agent_id"] for hit in hits} <= {"path-boris"}
        assert boris.get(f"/memory/episodic/{secret['episode_id']}").status_code == 404
        assert all(item["agent_id"] == "path-boris" for item in boris.get("/memory/episodic/recent").json()["items"])
        assert boris.post("/integrity/verify", json={"receipts": [_claim(secret)]}).json()["summary"] == {"missing": 1}


def test_last_paragraph_of_a_long_episode_is_found_by_words_and_by_meaning(stack: RunningStack) -> None:
    paragraph = "The board met for the ninth time this year and went through the list of open repairs in the north wing. "
    body = "\n\n".join(f"Item {number}. {paragraph * 4}" for number in range(110))
    last = (
        "Finally, the beekeeper donated forty jars of honey to the village school. The children will sell them at the spring fair, "
        "and the money pays for new books. She has kept forty hives behind the old mill since her husband {}."
    )
    ends = (last.format("retired"), last.format("died"))
    with stack.client("path-long") as client:
        receipts = [client.post("/memory/action", json={"content": f"{body}\n\n{end}"}).raise_for_status().json() for end in ends]
        client.post("/memory/action", json={"content": "The school bus was repainted yellow."}).raise_for_status()
        wait_until_embedded(client)
        assert {hit["episode_id"] for hit in search(client, "beekeeper donated jars of honey", mode="keyword")[:2]} == {
            receipt["episode_id"] for receipt in receipts
        }
        assert search(client, "her husband retired", mode="keyword")[0]["episode_id"] == receipts[0]["episode_id"]
        found = search(client, "someone who keeps bees gave sweet produce to pupils", mode="vector", limit=3)
        assert {hit["episode_id"] for hit in found[:2]} == {receipt["episode_id"] for receipt in receipts}
        hashes = [_vector_hashes(stack, receipt["episode_id"]) for receipt in receipts]
        assert len(hashes[0]) >= 40
        assert hashes[0][-1] != hashes[1][-1]
        pooled = [_pooled(stack, receipt["episode_id"]) for receipt in receipts]
        assert pooled[0] != pooled[1]
        np.testing.assert_allclose(json.loads(pooled[0]), _weighted_mean(stack, receipts[0]["episode_id"]), atol=1e-6)


def _pooled(stack: RunningStack, episode_id: str) -> str:
    database = stack.database("nexus_worker")
    with database.transaction() as connection:
        vector: str = connection.execute(
            text("SELECT embedding::text FROM nexus_memory.zep_episodic_memory WHERE episode_id = :id"), {"id": episode_id}
        ).scalar_one()
    database.close()
    return vector


def test_every_component_is_healthy_and_the_identity_holds(stack: RunningStack) -> None:
    with stack.client() as client:
        report = client.get("/health").json()
        assert report["components"]["accounting_identity"]["detail"] == "drift 0"
        assert {name: part["status"] for name, part in report["components"].items()} == dict.fromkeys(report["components"], "healthy")
        identity = client.get("/integrity").json()
        assert identity["accepted"] == sum(identity[term] for term in ("searchable", "pending", "processing", "dead", "deleted"))


def test_flower_asks_for_a_password(stack: RunningStack) -> None:
    url = f"http://127.0.0.1:{stack.settings.flower_port}/workers"
    with httpx.Client(timeout=30, trust_env=False) as client:
        assert client.get(url).status_code == 401
        page = client.get(url, auth=("admin", stack.admin_key))
        assert page.status_code == 200
        assert "worker1@" in page.text


def _weighted_mean(stack: RunningStack, episode_id: str) -> NDArray[np.float64]:
    """Return the unit vector that the stored chunks add up to, each weighed by its characters."""
    database = stack.database("nexus_worker")
    with database.transaction() as connection:
        rows = connection.execute(
            text("SELECT embedding::text, char_end - char_start FROM nexus_memory.episode_chunks WHERE episode_id = :id"),
            {"id": episode_id},
        ).all()
    database.close()
    mean = np.average([json.loads(vector) for vector, _ in rows], axis=0, weights=[chars for _, chars in rows])
    return np.asarray(mean / np.linalg.norm(mean))
