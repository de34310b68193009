"""The runbooks work: each is typed into a shell, against a stack that is broken in the way it describes, which is well afterwards."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.sandbox import Sandbox
from tests.acceptance.sessions import Answered, run_session
from tests.factories.documents import ROOT, Example, examples, unlike

FOLDER = ROOT / "docs" / "runbooks"
SECONDS = 400
TRIGGERS_OFF = "SET session_replication_role = replica"


def follow(name: str, sandbox: Sandbox, folder: Path) -> list[tuple[Example, Answered]]:
    """Do what a runbook says and hold each block to its word."""
    blocks = examples(f"docs/runbooks/{name}.md")
    assert len(blocks) >= 4
    done = list(zip(blocks, run_session(sandbox.settings, blocks, folder, SECONDS, sandbox.small), strict=True))
    for block, outcome in done:
        if block.status is not None:
            assert outcome.status == block.status, (block.name, outcome)
        else:
            assert outcome.exit_status == (block.exit_status or 0), (block.name, outcome)
        assert unlike(block.output, outcome.stdout) == [], (block.name, outcome)
    return done


@contextmanager
def traffic(sandbox: Sandbox) -> Iterator[Counter[int]]:
    """Write with an agent's key all the while, and yield how many of each status came back; 0 is no answer."""
    with sandbox.client() as client:
        made = client.post("/keys", json={"role": "agent", "name": "traffic", "agent_id": "bob"}).raise_for_status().json()
    answers: Counter[int] = Counter()
    is_over = threading.Event()

    def write() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{sandbox.settings.port}", timeout=30, trust_env=False) as client:
            while not is_over.wait(0.05):
                try:
                    headers = {"X-API-Key": made["key"]}
                    answers[client.post("/memory/action", json={"content": "on and on"}, headers=headers).status_code] += 1
                except httpx.HTTPError:
                    answers[0] += 1

    writer = threading.Thread(target=write, name="traffic")
    writer.start()
    try:
        yield answers
    finally:
        is_over.set()
        writer.join()


def test_every_runbook_is_followed_here_and_says_the_same_things() -> None:
    # The page of alerts begins each of them and mends none; its commands are run with those of the pages for operators.
    names = {path.stem for path in FOLDER.glob("*.md")} - {"README", "alerts"}
    assert {name for name in names if f'follow("{name}"' in Path(__file__).read_text(encoding="utf-8")} == names
    for name in names:
        text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
        for said in ("**When**:", "## How you know that it is over", "## What it cannot do"):
            assert said in text, (name, said)
        assert f"]({name}.md)" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_embeddings_stuck(sandbox: Sandbox, tmp_path: Path) -> None:
    before = sandbox.wait_until_embedded()["done"]
    sandbox.supervisor().stop("worker_1")
    sandbox.store(3, "stored while no worker runs")
    follow("embeddings-stuck", sandbox, tmp_path)
    assert sandbox.wait_until_embedded()["done"] == before + 3


def test_backfill(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.wait_until_embedded()
    # Beat would find them too, every five minutes.
    sandbox.supervisor().stop("beat")
    loaded = (
        "INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) SELECT 'loaded', 'loaded ' || i FROM generate_series(1, 25) i"
    )
    sandbox.sql((TRIGGERS_OFF, None), (loaded, None))
    follow("backfill", sandbox, tmp_path)
    sandbox.supervisor().start("beat")
    with closing(sandbox.superuser()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM nexus_memory.episode_chunks WHERE agent_id = 'loaded'")
        assert cursor.fetchone() == (25,)
    # What has no event in the ledger would be told from what has; the page says so.
    sandbox.sql((TRIGGERS_OFF, None), *_forget_loaded())


def _forget_loaded() -> list[tuple[str, Any]]:
    tables = ("nexus_memory.episode_chunks", "memory_system.embeddings_queue", "nexus_memory.zep_episodic_memory")
    return [(f"DELETE FROM {table} WHERE agent_id = 'loaded'", None) for table in tables]


def test_replay_dead_rows(sandbox: Sandbox, tmp_path: Path) -> None:
    ids = sandbox.store(5, "its embedding fails")
    sandbox.wait_until_embedded()
    die = (
        "UPDATE memory_system.embeddings_queue SET state = 'dead', retry_count = 5, last_error = %s, processed_at = now()"
        " WHERE target_id = ANY (%s::uuid[])"
    )
    causes = {"encoder_error: RuntimeError": ids[:3], "worker_lost: WorkerLostError": ids[3:]}
    sandbox.sql(*((die, (cause, [str(each) for each in dead])) for cause, dead in causes.items()))
    follow("replay-dead-rows", sandbox, tmp_path)
    assert sandbox.wait_until_embedded()["dead"] == 0


def test_rotate_secrets_under_traffic(sandbox: Sandbox, tmp_path: Path) -> None:
    names = (
        "pg_app_password",
        "pg_worker_password",
        "pg_readonly_password",
        "pg_superuser_password",
        "redis_password",
        "admin_api_key",
        "metrics_api_key",
    )
    before = {name: sandbox.settings.secret(name) for name in names}
    seal = sandbox.settings.secret("ledger_signing_key")
    with traffic(sandbox) as answers:
        follow("rotate-secrets", sandbox, tmp_path)
    assert answers[201] > 50
    assert set(answers) == {201}, "no request fails while every secret changes"
    assert [name for name in names if sandbox.settings.secret(name) == before[name]] == []
    assert sandbox.settings.secret("ledger_signing_key") == seal
    for name in names:
        assert sandbox.settings.secret_path(name).stat().st_mode & 0o777 == 0o600
    logs = "".join(path.read_text(encoding="utf-8", errors="replace") for path in (sandbox.settings.data_dir / "logs").iterdir())
    assert [name for name in names if before[name] in logs or sandbox.settings.secret(name) in logs] == []
    sandbox.store(2, "after the change of every secret")
    assert sandbox.wait_until_embedded()["dead"] == 0


def test_scale_workers(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.store(30, "a planned load")
    follow("scale-workers", sandbox, tmp_path)


def test_restore(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.wait_until_embedded()
    follow("restore", sandbox, tmp_path)
    with sandbox.client() as client:
        identity = client.get("/integrity").raise_for_status().json()
        assert (identity["drift"], identity["accepted"]) == (0, identity["searchable"]), identity
        assert identity["accepted"] > 40


def test_restore_refuses_what_would_replace_episodes_and_what_is_no_whole_dump(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.store(1, "what must stay")
    whole, cut = tmp_path / "whole.dump", tmp_path / "cut.dump"
    assert sandbox.command("db", "dump", str(whole)).returncode == 0
    assert whole.stat().st_mode & 0o777 == 0o600
    cut.write_bytes(whole.read_bytes()[:20_000])
    for arguments, said in (((str(whole),), "--replace"), ((str(cut), "--replace"), "pg_restore failed")):
        done = sandbox.command("db", "restore", *arguments)
        assert (done.returncode, said in done.stderr.splitlines()[-1]) == (1, True), done.stderr
    with closing(sandbox.superuser()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'nexus_memory%restoring'")
        assert cursor.fetchall() == []
    assert sandbox.wait_until_embedded()["dead"] == 0
