"""Proof of what is stored: every verdict from a real cause, and a ledger that nobody who logs in can rewrite."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.bootstrap import Services
from app.config import Role
from app.db import Database
from app.episodes.models import Receipt
from app.errors import InvalidRequest
from app.integrity.service import ReceiptClaim
from tests.factories.episodes import delete, edit, new_episode
from tests.factories.receipts import claim_of, verdict
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql
from tests.factories.workshop import Workshop

EPISODES = "nexus_memory.zep_episodic_memory"


@pytest.fixture
def receipt(services: Services, workshop: Workshop) -> Receipt:
    """The receipt of an episode that is searchable."""
    stored = services.episodes.store("alice", new_episode("the kettle is on the stove"))
    workshop.drain()
    return stored


def test_verdicts_on_the_way_to_searchable(services: Services, workshop: Workshop) -> None:
    receipt = services.episodes.store("alice", new_episode())
    assert verdict(services, receipt) == "pending"
    (batch,) = workshop.claim()
    assert verdict(services, receipt) == "processing"
    workshop.process(batch)
    assert verdict(services, receipt) == "searchable"
    assert verdict(services, receipt, None) == "searchable"


def test_dead(services: Services, workshop: Workshop) -> None:
    receipt = services.episodes.store("alice", new_episode())
    workshop.encoder.before = lambda _: 1 / 0
    workshop.drain(waits=True)
    assert verdict(services, receipt) == "dead"


def test_superseded_by_an_edit_through_the_service(services: Services, workshop: Workshop, receipt: Receipt) -> None:
    edit(services.database, "alice", receipt.episode_id, "the kettle is off")
    assert verdict(services, receipt) == "superseded"
    workshop.drain()
    assert verdict(services, receipt) == "superseded"
    (now,) = services.integrity.verify_range("alice", receipt.seq, receipt.seq)
    assert (now.verdict, now.version) == ("searchable", 2)


def test_deleted_through_the_service(services: Services, receipt: Receipt, sql: Sql) -> None:
    delete(services.database, "alice", receipt.episode_id)
    assert verdict(services, receipt) == "deleted"
    assert sql("SELECT event, content_sha256, nonce FROM memory_system.ledger ORDER BY ledger_seq") == [
        ("accepted", None, None),
        ("deleted", None, None),
    ]
    # The leaf stays, and still proves the receipt.
    assert verdict(services, replace(claim_of(receipt), nonce=uuid4().hex)) == "altered"


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {EPISODES} SET content = 'something else'",
        f"{TRIGGERS_OFF}; UPDATE {EPISODES} SET content = 'something else'",
        f"{TRIGGERS_OFF}; UPDATE {EPISODES} SET content = 'something else', version = 2",
        f"{TRIGGERS_OFF}; UPDATE {EPISODES} SET receipt_nonce = gen_random_uuid()",
        f"{TRIGGERS_OFF}; UPDATE {EPISODES} SET agent_id = 'bob'; UPDATE {EPISODES} SET agent_id = 'alice', version = 7",
        "UPDATE nexus_memory.episode_chunks SET embedding = (SELECT array_agg(-x)::public.vector FROM unnest(embedding::real[]) x)",
        "UPDATE nexus_memory.episode_chunks SET vector_sha256 = sha256('x')",
    ],
)
def test_altered_behind_the_services_back(statement: str, services: Services, workshop: Workshop, receipt: Receipt, sql: Sql) -> None:
    sql(statement)
    sql(TRIGGERS_ON)
    assert verdict(services, receipt) == "altered"
    workshop.drain()
    assert verdict(services, receipt) == "altered"


def test_missing_when_deleted_by_hand(services: Services, receipt: Receipt, sql: Sql) -> None:
    sql(f"DELETE FROM {EPISODES}")
    assert verdict(services, receipt) == "missing"
    assert services.integrity.identity().drift == 1


@pytest.mark.parametrize(
    "statement",
    [
        f"{TRIGGERS_OFF}; UPDATE {EPISODES} SET embedding = NULL, embedding_sha256 = NULL",
        "DELETE FROM nexus_memory.episode_chunks",
        "UPDATE nexus_memory.episode_chunks SET input_sha256 = sha256('other text')",
        f"UPDATE {EPISODES} SET embedding_sha256 = sha256('other text')",
    ],
)
def test_stale_without_the_vector_of_the_present_text(statement: str, services: Services, receipt: Receipt, sql: Sql) -> None:
    sql(statement)
    sql(TRIGGERS_ON)
    assert verdict(services, receipt) == "stale"


def test_row_that_was_never_accepted_is_altered(services: Services, sql: Sql) -> None:
    sql(TRIGGERS_OFF)
    episode_id, seq = sql(f"INSERT INTO {EPISODES} (agent_id, content) VALUES ('alice', 'smuggled') RETURNING episode_id::text, seq")[0]
    sql(TRIGGERS_ON)
    assert verdict(services, ReceiptClaim(UUID(episode_id), seq, 1, "00" * 32, "00" * 16)) == "altered"
    (found,) = services.integrity.verify_range(None, seq, seq)
    assert found.verdict == "altered"


def test_forged_receipts_are_told(services: Services, receipt: Receipt) -> None:
    claim = claim_of(receipt)
    forged = {
        "altered": [replace(claim, content_sha256="00" * 32), replace(claim, nonce=uuid4().hex), replace(claim, seq=claim.seq + 1)],
        "missing": [replace(claim, episode_id=uuid4())],
    }
    for expected, claims in forged.items():
        for forgery in claims:
            assert verdict(services, forgery) == expected, forgery
    assert verdict(services, replace(claim, version=2)) == "altered"


def test_receipt_of_another_agent_is_missing_for_a_bound_one(services: Services, workshop: Workshop) -> None:
    theirs = services.episodes.store("bob", new_episode("the safe combination"))
    workshop.drain()
    assert verdict(services, theirs, "alice") == "missing"
    assert verdict(services, theirs, "bob") == "searchable"
    assert verdict(services, theirs, None) == "searchable"
    delete(services.database, "bob", theirs.episode_id)
    assert verdict(services, theirs, "alice") == "missing"
    assert services.integrity.verify_range("alice", 1, 100) == []


def test_range_names_everything_in_order(services: Services, workshop: Workshop, sql: Sql) -> None:
    receipts = services.episodes.store_many("alice", [new_episode(f"episode {n}") for n in range(8)])
    services.episodes.store("bob", new_episode())
    workshop.drain()
    edit(services.database, "alice", receipts[1].episode_id, "edited")
    delete(services.database, "alice", receipts[2].episode_id)
    sql(f"DELETE FROM {EPISODES} WHERE episode_id = %s", str(receipts[3].episode_id))
    sql(f"{TRIGGERS_OFF}; UPDATE {EPISODES} SET content = 'x' WHERE episode_id = %s", str(receipts[4].episode_id))
    sql(TRIGGERS_ON)
    found = services.integrity.verify_range("alice", receipts[0].seq, receipts[0].seq + 100)
    assert [one.seq for one in found] == sorted(one.seq for one in found)
    assert [one.verdict for one in found] == [
        "searchable",
        "pending",
        "deleted",
        "missing",
        "altered",
        "searchable",
        "searchable",
        "searchable",
    ]
    assert [one.version for one in found][:3] == [1, 2, 1]
    assert len(services.integrity.verify_range(None, 1, 10_000)) == 9


@pytest.mark.parametrize(("first", "last"), [(5, 4), (1, 10_001)])
def test_range_backwards_or_too_long_is_refused(first: int, last: int, services: Services) -> None:
    with pytest.raises(InvalidRequest):
        services.integrity.verify_range(None, first, last)


def test_thousand_receipts_are_judged_in_their_order(services: Services) -> None:
    receipts = services.episodes.store_many("alice", [new_episode(f"episode {n}") for n in range(1000)])
    shuffled = receipts[::-1]
    found = services.integrity.verify_receipts("alice", [claim_of(receipt) for receipt in shuffled])
    assert [one.episode_id for one in found] == [receipt.episode_id for receipt in shuffled]
    assert {one.verdict for one in found} == {"pending"}


@pytest.mark.parametrize("role", ["nexus_app", "nexus_worker", "nexus_ro", "nexus_superuser"])
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO memory_system.ledger (episode_id, seq, agent_id, version, event, leaf)"
        " VALUES (gen_random_uuid(), 1, 'alice', 1, 'accepted', 'x')",
        "UPDATE memory_system.ledger SET version = 9",
        "UPDATE memory_system.ledger SET content_sha256 = NULL, nonce = NULL",
        "DELETE FROM memory_system.ledger",
    ],
)
def test_ledger_cannot_be_changed_by_who_logs_in(
    role: Role, statement: str, services: Services, receipt: Receipt, login: Callable[[Role], Database], sql: Sql
) -> None:
    before = sql("SELECT * FROM memory_system.ledger")
    try:
        with login(role).transaction("alice") as connection:
            # The owner has every grant, and row security, which is forced on it too, shows it nothing.
            assert connection.execute(text(statement)).rowcount == 0
    except DBAPIError as error:
        assert "permission denied" in str(error) or "row-level security" in str(error)
    assert sql("SELECT * FROM memory_system.ledger") == before


def test_edit_is_recorded_once_and_only_in_its_own_transaction(services: Services, receipt: Receipt) -> None:
    change = text("UPDATE nexus_memory.zep_episodic_memory SET content = 'behind the back'")
    record = text("SELECT memory_system.record_edit(:id)")
    with services.database.transaction("alice") as connection:
        connection.execute(change)
    with services.database.transaction("alice") as connection:
        assert connection.execute(record, {"id": receipt.episode_id}).scalar_one() is False
    assert verdict(services, receipt) == "altered"
    with services.database.transaction("alice") as connection:
        connection.execute(text("UPDATE nexus_memory.zep_episodic_memory SET content = 'through the service'"))
        assert connection.execute(record, {"id": receipt.episode_id}).scalar_one() is True
        assert connection.execute(record, {"id": receipt.episode_id}).scalar_one() is False
    assert verdict(services, receipt) == "superseded"


def test_leaf_can_be_computed_by_a_client(services: Services, receipt: Receipt, sql: Sql) -> None:
    import hashlib

    raw = (
        bytes.fromhex(receipt.nonce) + receipt.episode_id.bytes + receipt.version.to_bytes(4, "big") + bytes.fromhex(receipt.content_sha256)
    )
    assert sql.one("SELECT encode(leaf, 'hex') FROM memory_system.ledger") == hashlib.sha256(raw).hexdigest()
