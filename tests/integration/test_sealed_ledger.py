"""The sealed ledger: heads that follow from one another, receipts that anyone can check, and tampering that is named."""

import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from psycopg2 import extensions

from app.bootstrap import Services, build_sealing_service
from app.config import Settings
from app.episodes.models import Receipt
from app.errors import Conflict, NotFound
from app.integrity import heads as heads_module
from app.integrity import merkle, sealing
from app.integrity.heads import check_chain
from app.integrity.proofs import check_receipt, head_from_json, head_to_json, proof_to_json
from app.integrity.sealing import SealingService
from tests.factories.receipts import as_json, store
from tests.factories.statements import Sql


@pytest.fixture
def sealer(database_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> SealingService:
    """A sealer whose full range has ten entries."""
    monkeypatch.setattr(sealing, "RANGE_SIZE", 10)
    return build_sealing_service(database_settings)


def refusal(services: Services, receipt: Receipt) -> str | None:
    proof = json.loads(json.dumps(proof_to_json(services.proofs.prove(None, receipt.episode_id, receipt.version)), default=str))
    return check_receipt(as_json(receipt), proof, services.proofs.heads().heads)


def test_full_ranges_are_sealed_and_the_rest_waits(services: Services, sealer: SealingService) -> None:
    receipts = store(services, 25)
    sealed = sealer.seal()
    assert (sealed.ranges, sealed.waiting) == (2, 5)
    assert sealer.seal() == sealing.Sealed(0, 5)
    found = services.proofs.heads().heads
    assert [(one.head.first_ledger_seq, one.head.last_ledger_seq, one.head.void_count) for one in found] == [(1, 10, 0), (11, 20, 0)]
    assert check_chain(found) == []
    assert [refusal(services, receipt) for receipt in receipts[:20]] == [None] * 20
    with pytest.raises(Conflict):
        services.proofs.prove("alice", receipts[24].episode_id)
    assert sealer.seal(everything=True).waiting == 0
    assert refusal(services, receipts[24]) is None
    assert check_chain(services.proofs.heads().heads) == []


def test_old_rest_is_sealed_by_itself(services: Services, database_settings: Settings, sql: Sql) -> None:
    store(services, 3)
    patient = build_sealing_service(database_settings)
    assert patient.seal().ranges == 0
    hasty = build_sealing_service(database_settings.model_copy(update={"ledger_seal_seconds": 0.001}))
    assert hasty.seal() == sealing.Sealed(1, 0)
    assert hasty.seal() == sealing.Sealed(0, 0)


def test_edits_and_deletions_leave_every_earlier_proof_valid(services: Services, sealer: SealingService) -> None:
    first, second = store(services, 2)
    edited = services.episodes.change("alice", first.episode_id, {"content": "changed"})
    services.episodes.delete("alice", second.episode_id)
    sealer.seal(everything=True)
    services.episodes.change("alice", first.episode_id, {"content": "changed again"})
    services.episodes.delete("alice", first.episode_id)
    sealer.seal(everything=True)
    assert [refusal(services, receipt) for receipt in (first, second, edited)] == [None] * 3
    assert services.proofs.audit() == []


def test_consistency_between_any_two_heads(services: Services, sealer: SealingService) -> None:
    for _ in range(5):
        store(services, 10)
        sealer.seal()
    found = services.proofs.heads().heads
    for since in range(5):
        path = services.proofs.heads(since).consistency
        assert path is not None
        assert merkle.is_consistent(since + 1, 5, found[since].head.tree_root, found[-1].head.tree_root, path)
    with pytest.raises(NotFound):
        services.proofs.heads(5)


def test_number_that_was_never_written_is_void(services: Services, sealer: SealingService, superuser: extensions.connection) -> None:
    store(services, 3)
    superuser.autocommit = False
    with superuser.cursor() as cursor:
        cursor.execute("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES ('alice', 'rolled back')")
    superuser.rollback()
    superuser.autocommit = True
    receipts = store(services, 6)
    assert sealer.seal().ranges == 1
    (signed,) = services.proofs.heads().heads
    assert signed.head.void_count == 1
    assert [refusal(services, receipt) for receipt in receipts] == [None] * 6


def test_range_is_not_sealed_while_a_transaction_may_still_write_into_it(
    services: Services, sealer: SealingService, superuser: extensions.connection
) -> None:
    superuser.autocommit = False
    with superuser.cursor() as cursor:
        cursor.execute("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES ('alice', 'late')")
    store(services, 15)
    assert sealer.seal(patience_seconds=0.3).ranges == 0, "a number that is still to be written would have been sealed as void"
    superuser.commit()
    superuser.autocommit = True
    assert sealer.seal().ranges == 1
    assert services.proofs.heads().heads[0].head.void_count == 0


def test_mutant_that_does_not_wait_seals_a_late_entry_as_void(
    services: Services, sealer: SealingService, superuser: extensions.connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SealingService, "_settled", lambda *_: True)
    superuser.autocommit = False
    with superuser.cursor() as cursor:
        cursor.execute("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES ('alice', 'late')")
    store(services, 15)
    sealer.seal()
    superuser.commit()
    superuser.autocommit = True
    assert services.proofs.audit() != [], "the wait is not what keeps it out"


def newest_is_waited_for(services: Services, sealer: SealingService, superuser: extensions.connection) -> None:
    """The open transaction is the youngest of all: no other has begun since, by which its id could be told from one to come."""
    store(services, 15)
    superuser.autocommit = False
    with superuser.cursor() as cursor:
        cursor.execute("INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES ('alice', 'late')")
    sealed = sealer.seal(everything=True, patience_seconds=0.3)
    superuser.commit()
    superuser.autocommit = True
    assert services.proofs.audit() == [], "an entry that was still open was signed as void"
    assert sealed.ranges == 0
    sealer.seal(everything=True)
    assert sum(signed.head.void_count for signed in services.proofs.heads().heads) == 0
    assert services.proofs.audit() == []


def test_youngest_transaction_is_waited_for_too(services: Services, sealer: SealingService, superuser: extensions.connection) -> None:
    newest_is_waited_for(services, sealer, superuser)


def test_mutant_that_goes_by_the_snapshots_end_signs_an_open_entry_as_void(
    services: Services, sealer: SealingService, superuser: extensions.connection, sql: Sql
) -> None:
    source = sql.one("SELECT pg_get_functiondef('memory_system.ledger_position'::regproc)")
    guard = "(pg_current_xact_id()::text::numeric + 1)::text::xid8"
    assert guard in source
    sql(source.replace(guard, "pg_snapshot_xmax(pg_current_snapshot())"))
    with pytest.raises(AssertionError, match="signed as void"):
        newest_is_waited_for(services, sealer, superuser)


def test_ranges_sealed_while_others_write_are_never_wrong(services: Services, sealer: SealingService) -> None:
    stop = threading.Event()

    def write_on() -> None:
        while not stop.wait(0.005):
            store(services, 1)

    writers = [threading.Thread(target=write_on) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(10):
            sealer.seal(everything=True)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert services.proofs.audit() == []


def test_many_sealers_at_once_add_each_range_once(services: Services, database_settings: Settings, sealer: SealingService) -> None:
    store(services, 100)
    sealers = [build_sealing_service(database_settings) for _ in range(4)]
    threads = [threading.Thread(target=one.seal) for one in sealers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = services.proofs.heads().heads
    assert len(found) == 10
    assert check_chain(found) == []


TAMPERINGS: dict[str, str] = {
    "altered": "UPDATE memory_system.ledger SET leaf = sha256('x') WHERE ledger_seq = 4",
    "removed": "DELETE FROM memory_system.ledger WHERE ledger_seq = 4",
    "its event changed": "UPDATE memory_system.ledger SET event = 'deleted' WHERE ledger_seq = 4",
    "swapped": "UPDATE memory_system.ledger l SET leaf = o.leaf FROM memory_system.ledger o"
    " WHERE (l.ledger_seq, o.ledger_seq) IN ((3, 4), (4, 3))",
    "inserted": "INSERT INTO memory_system.ledger (ledger_seq, episode_id, seq, agent_id, version, event, leaf)"
    " OVERRIDING SYSTEM VALUE VALUES (5, gen_random_uuid(), 99, 'alice', 1, 'accepted', sha256('y'))",
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_entry_tampered_with_behind_the_services_back_is_named(name: str, services: Services, sealer: SealingService, sql: Sql) -> None:
    store(services, 10)
    if name == "inserted":
        sql("DELETE FROM memory_system.ledger WHERE ledger_seq = 5")
    sealer.seal()
    assert services.proofs.audit() == []
    sql(TAMPERINGS[name])
    (problem,) = services.proofs.audit()
    assert problem.startswith("range 0: entries 1 to 10")


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        ("UPDATE memory_system.ledger_heads SET merkle_root = sha256('x') WHERE range_no = 1", "signature is wrong"),
        ("UPDATE memory_system.ledger_heads SET sealed_at = sealed_at - interval '1 day' WHERE range_no = 1", "signature is wrong"),
        ("DELETE FROM memory_system.ledger_heads WHERE range_no = 0", "does not follow"),
        ("UPDATE memory_system.ledger_heads SET public_key = sha256('x') WHERE range_no = 1", "another key"),
    ],
)
def test_head_tampered_with_is_named(statement: str, part: str, services: Services, sealer: SealingService, sql: Sql) -> None:
    store(services, 30)
    sealer.seal()
    sql(statement)
    assert any(part in problem for problem in services.proofs.audit())


def test_rewritten_chain_of_a_thief_of_the_database_is_of_another_key(
    services: Services, sealer: SealingService, database_settings: Settings, sql: Sql
) -> None:
    store(services, 10)
    sealer.seal()
    trusted = services.proofs.heads().heads[0].public_key
    sql("DELETE FROM memory_system.ledger_heads")
    sql("UPDATE memory_system.ledger SET leaf = sha256('x') WHERE ledger_seq = 4")
    thief = SealingService(sealer._database, lambda: heads_module.Signer("not the secret"), 3600)
    assert thief.seal().ranges == 1
    assert services.proofs.audit() == [], "without a key that is known it looks right: that is why heads are published"
    assert any("another key" in problem for problem in services.proofs.audit(trusted))
    assert any("another key" in problem for problem in check_chain(services.proofs.heads().heads, trusted))


def test_proof_of_another_agents_episode_is_not_given(services: Services, sealer: SealingService) -> None:
    (receipt,) = store(services, 1)
    sealer.seal(everything=True)
    with pytest.raises(NotFound):
        services.proofs.prove("bob", receipt.episode_id)
    assert services.proofs.prove("alice", receipt.episode_id).version == 1


def test_forged_receipts_are_refused(services: Services, sealer: SealingService) -> None:
    first, second = store(services, 2)
    sealer.seal(everything=True)
    assert refusal(services, replace(first, content_sha256="0" * 64)) is not None
    assert refusal(services, replace(first, nonce=second.nonce)) is not None
    proof = json.loads(json.dumps(proof_to_json(services.proofs.prove(None, first.episode_id)), default=str))
    found = services.proofs.heads().heads
    forgeries: list[dict[str, Any]] = [
        proof | {"ledger_seq": 2},
        proof | {"event": "edited"},
        proof | {"event": "deleted"},
        proof | {"range_path": []},
        proof | {"head": proof["head"] | {"range_no": 7}},
        {},
    ]
    for forged in forgeries:
        assert check_receipt(as_json(first), forged, found) is not None
    assert check_receipt(as_json(second), proof, found) is not None


def test_numbers_that_are_none_are_refused_without_a_database_too(services: Services, sealer: SealingService) -> None:
    """1.0, true and "1" are equal to 1 for Python, and other values than the service gave."""
    (receipt,) = store(services, 1)
    sealer.seal(everything=True)
    proof = json.loads(json.dumps(proof_to_json(services.proofs.prove(None, receipt.episode_id)), default=str))
    found = services.proofs.heads().heads
    head = json.loads(json.dumps(head_to_json(found[0]), default=str))
    assert (head_from_json(head), check_receipt(as_json(receipt), proof, found)) == (found[0], None)
    for wrong in (1.0, True, "1"):
        assert check_receipt(as_json(receipt) | {"version": wrong}, proof, found) == "the receipt or its proof is malformed"
        assert check_receipt(as_json(receipt), proof | {"ledger_seq": wrong}, found) == "the receipt or its proof is malformed"
        with pytest.raises(ValueError, match="not a head"):
            head_from_json(head | {"last_ledger_seq": wrong})
