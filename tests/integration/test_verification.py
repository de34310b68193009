"""What is changed by hand is named, whatever it is: attributes, deletions undone, vectors as a whole, rows of any number."""

import pytest

from app.bootstrap import Services
from app.episodes.models import Receipt
from app.reconcile.service import ReconciliationService
from tests.factories.episodes import new_episode
from tests.factories.receipts import verdict
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql
from tests.factories.workshop import Workshop

EPISODES = "nexus_memory.zep_episodic_memory"


@pytest.fixture
def receipt(services: Services, workshop: Workshop) -> Receipt:
    """The receipt of an episode that is searchable."""
    stored = services.episodes.store("alice", new_episode("the kettle is on the stove"))
    workshop.drain()
    return stored


@pytest.mark.parametrize(
    "assignment",
    [
        "tags = '{forged}'",
        "metadata = '{\"forged\": 1}'",
        "importance_score = 0.9",
        "session_id = 'other'",
        '"timestamp" = "timestamp" - interval \'1 year\'',
        "action_details = '{}'",
        "idempotency_key = 'taken over'",
    ],
)
def test_attributes_changed_by_hand_are_altered(
    assignment: str, services: Services, workshop: Workshop, receipt: Receipt, sql: Sql
) -> None:
    sql(f"UPDATE {EPISODES} SET {assignment}")
    assert verdict(services, receipt) == "altered"
    # The next legal change makes nothing right that it does not touch, whether it makes a version or not.
    services.episodes.change("alice", receipt.episode_id, {"context_state": {"room": "kitchen"}})
    assert verdict(services, receipt) == "altered"
    services.episodes.change("alice", receipt.episode_id, {"content": "the kettle boils"})
    workshop.drain()
    (now,) = services.integrity.verify_range("alice", receipt.seq, receipt.seq)
    assert now.verdict == "altered"


def test_attributes_changed_through_the_service_stay_right(services: Services, workshop: Workshop, receipt: Receipt, sql: Sql) -> None:
    change = {"tags": ["a", "ñ"], "metadata": {"n": 1.5, "m": [None]}, "importance_score": 0.1 + 0.2, "actor": "Ana", "session_id": "s"}
    services.episodes.change("alice", receipt.episode_id, {**change, "occurred_at": "2024-02-29T12:00:00.123456+02:00"})
    workshop.drain()
    assert verdict(services, receipt) == "searchable"
    services.episodes.change("alice", receipt.episode_id, {"content": "the kettle boils", "tags": [], "project": "home"})
    workshop.drain()
    (now,) = services.integrity.verify_range("alice", receipt.seq, receipt.seq)
    assert (now.verdict, now.version) == ("searchable", 2)
    # A project may go, and whatever the session's settings are, the hash is the same.
    sql("DELETE FROM nexus_memory.projects")
    sql("SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'SQL, DMY'; SET extra_float_digits = -5")
    claims = f'[{{"episode_id": "{receipt.episode_id}", "seq": {receipt.seq}, "version": 2}}]'
    assert sql.one("SELECT row_matches_ledger FROM memory_system.verification_facts(%s)", claims)
    sql("RESET ALL")
    services.episodes.delete("alice", receipt.episode_id)
    assert sql("SELECT DISTINCT attributes_sha256 FROM memory_system.ledger") == [(None,)]


def test_deleted_episode_that_was_put_back_is_altered(services: Services, receipt: Receipt, sql: Sql) -> None:
    sql(f"CREATE TABLE public.kept AS SELECT episode_id, agent_id, content FROM {EPISODES}")
    services.episodes.delete("alice", receipt.episode_id)
    sql(TRIGGERS_OFF)
    sql(f"INSERT INTO {EPISODES} (episode_id, agent_id, content) SELECT * FROM public.kept")
    sql(TRIGGERS_ON)
    sql("DROP TABLE public.kept")
    assert verdict(services, receipt) == "altered"
    assert [one.verdict for one in services.integrity.verify_all()] == ["altered", "altered"]


_OTHER_VECTOR = "(SELECT o.embedding FROM nexus_memory.episode_chunks o WHERE o.episode_id <> c.episode_id LIMIT 1)"


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE nexus_memory.episode_chunks c SET embedding = {_OTHER_VECTOR},"
        f" vector_sha256 = sha256(public.vector_send({_OTHER_VECTOR}))",
        "DELETE FROM nexus_memory.episode_chunks WHERE chunk_no = 1",
        "DELETE FROM nexus_memory.episode_chunks WHERE chunk_no = (SELECT max(chunk_no) FROM nexus_memory.episode_chunks)",
        f"{TRIGGERS_OFF}; UPDATE nexus_memory.episode_chunks SET agent_id = 'mallory'",
    ],
)
def test_vectors_are_verified_as_a_whole_and_repaired(
    statement: str, services: Services, workshop: Workshop, sql: Sql, reconciler: ReconciliationService
) -> None:
    receipt = services.episodes.store("alice", new_episode("the kettle is on the stove. " * 200))
    services.episodes.store("alice", new_episode("bread rises overnight"))
    workshop.drain()
    assert sql.one("SELECT max(chunk_no) FROM nexus_memory.episode_chunks") > 1
    assert verdict(services, receipt) == "searchable"
    sql(statement)
    sql(TRIGGERS_ON)
    assert verdict(services, receipt) == "altered"
    assert not reconciler.run("vectors").found
    report = reconciler.run("vectors", deep=True)
    assert report.repaired["altered"] >= 1
    assert verdict(services, receipt) == "pending"
    workshop.drain()
    assert verdict(services, receipt) == "searchable"
    assert sql.one("SELECT count(*) FROM nexus_memory.episode_chunks WHERE agent_id <> 'alice'") == 0


def test_everything_is_verified_whatever_its_number(services: Services, workshop: Workshop, sql: Sql) -> None:
    receipts = services.episodes.store_many("alice", [new_episode(f"episode {n}") for n in range(3)])
    workshop.drain()
    sql(TRIGGERS_OFF)
    for seq in (-5, 10**15):
        sql(f"INSERT INTO {EPISODES} (agent_id, content, seq) OVERRIDING SYSTEM VALUE VALUES ('alice', 'smuggled', {seq})")
    sql(TRIGGERS_ON)
    sql(f"DELETE FROM {EPISODES} WHERE episode_id = %s", str(receipts[2].episode_id))
    sql("SELECT setval('nexus_memory.zep_episodic_memory_seq_seq', 1)")
    assert [(one.seq, one.verdict) for one in services.integrity.verify_all()] == [
        (receipts[0].seq, "searchable"),
        (receipts[1].seq, "searchable"),
        (receipts[2].seq, "missing"),
        (-5, "altered"),
        (10**15, "altered"),
    ]


def test_episode_whose_agent_was_changed_by_hand_is_repaired_once(
    services: Services, workshop: Workshop, receipt: Receipt, sql: Sql, reconciler: ReconciliationService
) -> None:
    sql(TRIGGERS_OFF)
    sql(f"UPDATE {EPISODES} SET agent_id = 'mallory'")
    sql(TRIGGERS_ON)
    assert reconciler.run("vectors", deep=True).repaired["altered"] == 1
    workshop.drain()
    assert not reconciler.run("vectors", deep=True).found
    assert [one.verdict for one in services.integrity.verify_all()] == ["altered"]
