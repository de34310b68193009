"""`python -m app integrity` from files and over everything: what is proved, what is lost, and what is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from app.bootstrap import Services
from app.cli import integrity as command
from app.config import Settings
from app.errors import InvalidRequest
from app.semantic.models import NewSemanticMemory
from app.working.models import NewContext
from tests.factories.receipts import as_json, store
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql


@pytest.fixture
def run(services: Services, database_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr(command, "open_services", lambda: services)
    monkeypatch.setattr(command, "load_settings", lambda: database_settings)
    return lambda *arguments: CliRunner().invoke(command.integrity, arguments)


def test_third_party_checks_receipts_without_a_database(
    services: Services, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: Sql
) -> None:
    receipts = store(services, 5)
    file = tmp_path / "receipts.jsonl"
    file.write_text("".join(json.dumps(as_json(receipt)) + "\n" for receipt in receipts))
    assert run("prove", str(file)).exit_code == 1
    assert run("seal", "--everything").exit_code == 0
    heads, proofs = tmp_path / "heads.json", tmp_path / "proofs.jsonl"
    heads.write_text(_last_line(run("heads")))
    proofs.write_text("\n".join(line for line in run("prove", str(file)).stdout.splitlines() if line.startswith("{")))
    key = services.proofs.heads().heads[0].public_key.hex()

    def no_database() -> Any:
        raise AssertionError("check-offline asked for a database")

    monkeypatch.setattr(command, "open_services", no_database)
    good = run("check-offline", str(proofs), str(heads), "--public-key", key, "--json")
    assert (good.exit_code, json.loads(good.stdout)) == (0, {"receipts": 5, "heads": 1, "problems": []})
    assert run("check-offline", str(file), str(heads)).exit_code == 1, "a receipt without a proof proves nothing"
    assert run("check-offline", str(proofs), str(heads), "--public-key", "00" * 32).exit_code == 1
    proofs.write_text(proofs.read_text().replace(receipts[2].content_sha256, "1" * 64))
    forged = run("check-offline", str(proofs), str(heads))
    assert forged.exit_code == 1
    assert str(receipts[2].episode_id) in forged.stderr
    heads.write_text("junk")
    assert run("check-offline", str(proofs), str(heads)).exit_code == 1


def test_absurd_files_are_refused_in_words(services: Services, run: Callable[..., Result], tmp_path: Path) -> None:
    (receipt,) = store(services, 1)
    assert "nothing is sealed yet" in run("audit").stdout
    assert run("seal", "--everything").exit_code == 0
    file, heads, proofs = tmp_path / "receipts.jsonl", tmp_path / "heads.json", tmp_path / "proofs.jsonl"
    file.write_text(json.dumps(as_json(receipt)))
    heads.write_text(_last_line(run("heads")))
    good = json.loads(_last_line(run("prove", str(file))))
    of_receipt: list[dict[str, Any]] = [{"version": 10**40}, {"version": -1}, {"version": 1e308 * 10}, {"nonce": 5}, {"proof": 5}]
    of_proof: list[dict[str, Any]] = [{"ledger_seq": 10**40}, {"ledger_seq": -1}, {"event": "invented"}, {"range_path": ["zz"]}]
    of_proof.append({"head": {"range_no": 10**40}})
    of_head: list[dict[str, Any]] = [{"range_no": 10**40}, {"sealed_at": "0001-01-01T00:00:00+23:00"}, {"last_ledger_seq": 10**40}]
    of_head.append({"public_key": ""})

    def assert_refused() -> None:
        found = run("check-offline", str(proofs), str(heads))
        assert found.exit_code == 1 and isinstance(found.exception, SystemExit | InvalidRequest), found.exception

    for text in ("", "\n", "[" * 100_000, json.dumps(good)[:-1] + ', "version": 1}'):
        proofs.write_text(text)
        assert_refused()
    for spoilt in [good | changes for changes in of_receipt] + [good | {"proof": good["proof"] | changes} for changes in of_proof]:
        proofs.write_text(json.dumps(spoilt))
        assert_refused()
    proofs.write_text(json.dumps(good))
    sound = json.loads(heads.read_text())["heads"][0]
    assert run("check-offline", str(proofs), str(heads)).exit_code == 0
    for changes in of_head:
        heads.write_text(json.dumps({"heads": [sound | changes]}))
        assert_refused()


def _last_line(result: Result) -> str:
    return str(result.stdout.splitlines()[-1])


def test_verify_from_a_file_names_what_is_lost(services: Services, run: Callable[..., Result], tmp_path: Path, sql: Sql) -> None:
    receipts = store(services, 4)
    file = tmp_path / "receipts.jsonl"
    batch = json.dumps({"items": [as_json(receipt) for receipt in receipts[:2]]})
    file.write_text(batch + "\n\n" + "\n".join(json.dumps(as_json(receipt)) for receipt in receipts[2:]))
    fine = run("verify", str(file), "--json")
    assert (fine.exit_code, json.loads(_last_line(fine))["summary"]) == (0, {"pending": 4})
    sql(TRIGGERS_OFF)
    sql("DELETE FROM nexus_memory.zep_episodic_memory WHERE episode_id = %s", str(receipts[0].episode_id))
    sql("UPDATE nexus_memory.zep_episodic_memory SET content = 'forged' WHERE episode_id = %s", str(receipts[3].episode_id))
    sql(TRIGGERS_ON)
    lost = run("verify", str(file))
    assert lost.exit_code == 1
    assert f"{receipts[0].episode_id} seq {receipts[0].seq}: missing" in lost.stderr
    assert f"{receipts[3].episode_id} seq {receipts[3].seq}: altered" in lost.stderr
    sound = as_json(receipts[1])
    forged: list[dict[str, Any]] = [{"version": 1.0}, {"version": True}, {"seq": 1.5}, {"seq": 2**70}, {"nonce": 5}, {"episode_id": 5}]
    for changes in forged:
        file.write_text(json.dumps(sound | changes))
        refused = run("verify", str(file))
        assert (refused.exit_code, type(refused.exception)) == (1, InvalidRequest), changes
    for text in ("{}\n", "", "\n\n"):
        file.write_text(text)
        assert run("verify", str(file)).exit_code == 1
    assert run("audit").exit_code == 0


def test_audit_knows_by_heads_that_were_kept_that_the_ledger_was_sealed_anew(
    services: Services, run: Callable[..., Result], tmp_path: Path, sql: Sql
) -> None:
    store(services, 3)
    assert run("seal", "--everything").exit_code == 0
    kept = tmp_path / "heads.json"
    kept.write_text(run("heads").stdout)
    assert run("audit", str(kept)).exit_code == 0
    sql(TRIGGERS_OFF)
    sql("DELETE FROM memory_system.ledger_heads")
    sql("UPDATE memory_system.ledger SET leaf = sha256('x') WHERE seq = (SELECT min(seq) FROM memory_system.ledger)")
    sql(TRIGGERS_ON)
    assert "heads were removed" in run("audit", str(kept)).stderr
    assert run("seal", "--everything").exit_code == 0
    assert run("audit").exit_code == 0, "the database alone cannot tell"
    anew = run("audit", str(kept))
    assert (anew.exit_code, "sealed anew" in anew.stderr) == (1, True)


def test_verify_of_everything_names_each_thing_that_was_changed_by_hand(
    services: Services, run: Callable[..., Result], drain: Callable[[], int], database_settings: Settings, sql: Sql
) -> None:
    receipts = store(services, 6)
    services.working.put("alice", "plan", NewContext({"goal": "tea"}, 600))
    services.working.put("alice", "kept", NewContext({"goal": "rest"}, 600))
    drain()
    assert run("seal", "--everything").exit_code == 0
    fine = run("verify")
    assert (fine.exit_code, fine.stderr) == (0, ""), fine.output
    changed, removed, one, other = (str(receipt.episode_id) for receipt in receipts[:4])
    sql(TRIGGERS_OFF)
    sql("UPDATE nexus_memory.zep_episodic_memory SET content = 'forged' WHERE episode_id = %s", changed)
    sql("DELETE FROM nexus_memory.zep_episodic_memory WHERE episode_id = %s", removed)
    sql("INSERT INTO nexus_memory.zep_episodic_memory (episode_id, agent_id, content) VALUES (%s, 'alice', 'smuggled')", str(UUID(int=9)))
    sql(
        "UPDATE nexus_memory.episode_chunks c SET embedding = o.embedding FROM nexus_memory.episode_chunks o"
        " WHERE (c.episode_id, o.episode_id) IN ((%s, %s), (%s, %s))",
        one, other, other, one,
    )  # fmt: skip
    sql("UPDATE memory_system.ledger SET leaf = sha256('x') WHERE episode_id = %s", str(receipts[5].episode_id))
    sql(TRIGGERS_ON)
    with Redis.from_url(database_settings.cache_dsn) as redis:
        redis.set("nexus:working:alice:plan", b'{"goal": "forged"}', keepttl=True)
        redis.delete("nexus:working:alice:kept")  # A miss is nothing wrong.
    found = run("verify")
    assert found.exit_code == 1
    for expected in (
        f"{changed} seq {receipts[0].seq}: altered",
        f"{removed} seq {receipts[1].seq}: missing",
        f"{UUID(int=9)} seq 7: altered",
        f"{one} seq {receipts[2].seq}: altered: its vectors",
        f"{other} seq {receipts[3].seq}: altered: its vectors",
        f"{receipts[5].episode_id} seq {receipts[5].seq}: altered",
        "range 0: entries 1 to 6",
        "nexus:working:alice:plan: stale in Redis",
    ):
        assert expected in found.stderr, f"{expected} in {found.stderr}"
    assert str(receipts[4].episode_id) not in found.stderr
    assert "kept" not in found.stderr


def test_vanished_vector_is_named_and_ends_with_1(
    services: Services, run: Callable[..., Result], drain: Callable[[], int], sql: Sql
) -> None:
    gone, kept = store(services, 2)
    drain()
    sql("DELETE FROM nexus_memory.episode_chunks WHERE episode_id = %s", str(gone.episode_id))
    found = run("verify")
    assert found.exit_code == 1
    assert f"{gone.episode_id} seq {gone.seq}: stale" in found.stderr
    assert str(kept.episode_id) not in found.stderr


def test_vectors_put_in_by_hand_are_named_whatever_the_queue_says(
    services: Services, run: Callable[..., Result], drain: Callable[[], int], sql: Sql
) -> None:
    forged, kept = store(services, 2)
    services.semantic.store("alice", NewSemanticMemory("kettle", "on the stove"))
    drain()
    other = "(SELECT embedding FROM nexus_memory.episode_chunks WHERE episode_id = %s)"
    for table, row in (("episode_chunks", "episode_id = %s"), ("semantic_vectors", "%s IS NOT NULL")):
        assignments = f"embedding = {other}, vector_sha256 = sha256(public.vector_send({other}))"
        sql(f"UPDATE nexus_memory.{table} SET {assignments} WHERE {row}", *[str(kept.episode_id)] * 2, str(forged.episode_id))
    sql("UPDATE memory_system.embeddings_queue SET state = 'dead' WHERE target_id = %s", str(forged.episode_id))
    found = run("verify")
    assert found.exit_code == 1
    assert f"episode {forged.episode_id}: its vector is altered" in found.stderr
    assert "semantic memory" in found.stderr
    assert str(kept.episode_id) not in found.stderr
