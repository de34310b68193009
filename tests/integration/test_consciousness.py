"""Memory blocks and checkpoints: what is fixed stays, and identity is a number that anyone can recompute."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2.errors import ReadOnlySqlTransaction
from sqlalchemy import Connection, text
from sqlalchemy.exc import InternalError

from app.bootstrap import Services
from app.consciousness import repository
from app.consciousness.identity import compare, identity_hash
from app.consciousness.models import BlockView, NewCheckpoint
from app.db import Database
from app.errors import BlockReadOnly, Conflict, NotFound, PermissionDenied
from tests.factories.statements import Sql

CHECKPOINT = NewCheckpoint("manual", {"step": 1}, {})


def put(services: Services, label: str, value: str, *, read_only: bool | None = None, by_admin: bool = False) -> BlockView:
    return services.consciousness.put_block("alice", label, value, read_only=read_only, expected_version=None, may_unlock=by_admin)[0]


def test_version_grows_with_the_value_alone(services: Services) -> None:
    assert put(services, "persona", "calm").version == 1
    assert put(services, "persona", "bold").version == 2
    assert put(services, "persona", "bold").version == 2
    assert put(services, "persona", "bold", read_only=True).version == 2


def test_expected_version_guards(services: Services) -> None:
    def put_expecting(value: str, version: int) -> bool:
        try:
            services.consciousness.put_block("alice", "b", value, read_only=None, expected_version=version, may_unlock=False)
        except Conflict:
            return False
        return True

    assert not put_expecting("x", 1), "there is none yet"
    assert put_expecting("x", 0)
    assert not put_expecting("y", 0)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda number: put_expecting(f"v{number}", 1), range(30))) == 1


def test_read_only_block_is_kept_by_the_service_and_by_the_database(services: Services, app_database: Database) -> None:
    put(services, "oath", "do no harm", read_only=True)
    with pytest.raises(BlockReadOnly):
        put(services, "oath", "do harm")
    with pytest.raises(BlockReadOnly):
        services.consciousness.delete_block("alice", "oath")
    with pytest.raises(PermissionDenied):
        put(services, "oath", "do harm", read_only=False)
    for statement in ("UPDATE consciousness.memory_blocks SET value = 'x'", "DELETE FROM consciousness.memory_blocks"):
        with pytest.raises(InternalError) as refused, app_database.transaction("alice") as connection:
            connection.execute(text(statement))
        assert isinstance(refused.value.orig, ReadOnlySqlTransaction)
    assert put(services, "oath", "do no harm").value == "do no harm"
    assert put(services, "oath", "do good", read_only=False, by_admin=True).value == "do good"
    services.consciousness.delete_block("alice", "oath")
    with pytest.raises(NotFound):
        services.consciousness.get_block("alice", "oath")


def test_blocks_are_listed_by_label_in_pages_and_by_agent(services: Services) -> None:
    for label in ("b", "ñ", "a", "C"):
        put(services, label, label)
    services.consciousness.create_block("bob", "a", "of bob", read_only=False)
    first, after = services.consciousness.list_blocks("alice", 3)
    second, _ = services.consciousness.list_blocks("alice", 3, after)
    assert [block.label for block in first + second] == ["C", "a", "b", "ñ"]
    with pytest.raises(Conflict):
        services.consciousness.create_block("bob", "a", "again", read_only=False)
    with pytest.raises(NotFound):
        services.consciousness.get_block("bob", "b")


def test_identity_hash_is_as_documented() -> None:
    blocks = {"ñ": 'say "hi"\n', "a": "\u2028\U0001f389", "B": ""}
    canonical = '[["B",""],["a","\u2028\U0001f389"],["ñ","say \\"hi\\"\\n"]]'
    assert identity_hash(blocks) == hashlib.sha256(canonical.encode()).hexdigest()
    assert identity_hash({}) == hashlib.sha256(b"[]").hexdigest()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.dictionaries(texts, texts, max_size=4), st.dictionaries(texts, texts, max_size=4))
def test_identity_hash_and_continuity_agree(before: dict[str, str], now: dict[str, str]) -> None:
    continuity = compare(before, now)
    assert (identity_hash(before) == identity_hash(now)) == (before == now) == (continuity.score == 1.0)
    assert 0.0 <= continuity.score <= 1.0
    assert compare(now, before).score == continuity.score
    assert bool(continuity.changed or continuity.added or continuity.removed) == (before != now)


def test_value_moved_to_another_label_is_another_identity() -> None:
    assert identity_hash({"a": "x", "b": "y"}) != identity_hash({"a": "y", "b": "x"})
    assert identity_hash({"ab": "c"}) != identity_hash({"a": "bc"})


def test_checkpoint_keeps_the_blocks_and_restore_says_what_changed(services: Services) -> None:
    for label in ("kept", "changed", "removed"):
        put(services, label, "before")
    made = services.consciousness.checkpoint("alice", CHECKPOINT)
    assert made.continuity_score == 1.0
    assert made.identity_hash == identity_hash({"kept": "before", "changed": "before", "removed": "before"})
    same = services.consciousness.restore("alice", made.checkpoint_id, write_blocks=False)
    assert (same.continuity.score, same.is_intact, same.current_identity_hash) == (1.0, True, made.identity_hash)
    put(services, "changed", "after")
    services.consciousness.delete_block("alice", "removed")
    put(services, "added", "after")
    found = services.consciousness.restore("alice", made.checkpoint_id, write_blocks=False)
    assert (found.continuity.changed, found.continuity.added, found.continuity.removed) == (["changed"], ["added"], ["removed"])
    assert found.continuity.score == 0.25
    assert found.blocks_written == 0
    assert services.consciousness.checkpoint("alice", CHECKPOINT).continuity_score == 0.25


def test_restore_writes_the_blocks_back_all_or_none(services: Services) -> None:
    for label in ("kept", "changed", "removed"):
        put(services, label, "before")
    made = services.consciousness.checkpoint("alice", CHECKPOINT)
    put(services, "changed", "after")
    services.consciousness.delete_block("alice", "removed")
    put(services, "added", "after", read_only=True)
    with pytest.raises(BlockReadOnly):
        services.consciousness.restore("alice", made.checkpoint_id, write_blocks=True)
    assert services.consciousness.get_block("alice", "changed").value == "after", "half of it was written"
    put(services, "added", "after", read_only=False, by_admin=True)
    assert services.consciousness.restore("alice", made.checkpoint_id, write_blocks=True).blocks_written == 3
    again = services.consciousness.restore("alice", made.checkpoint_id, write_blocks=False)
    assert (again.continuity.score, again.current_identity_hash) == (1.0, made.identity_hash)


def test_restore_writes_nothing_when_a_removed_block_comes_back_meanwhile(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("changed", "removed"):
        put(services, label, "before")
    made = services.consciousness.checkpoint("alice", CHECKPOINT)
    put(services, "changed", "after")
    services.consciousness.delete_block("alice", "removed")
    lock_blocks = repository.lock_blocks

    def lock_and_be_overtaken(connection: Connection, agent_id: str) -> list[BlockView]:
        locked = lock_blocks(connection, agent_id)
        put(services, "removed", "of another request")
        return locked

    with monkeypatch.context() as patched:
        patched.setattr(repository, "lock_blocks", lock_and_be_overtaken)
        with pytest.raises(Conflict):
            services.consciousness.restore("alice", made.checkpoint_id, write_blocks=True)
    assert services.consciousness.get_block("alice", "changed").value == "after", "half of it was written"
    assert services.consciousness.get_block("alice", "removed").value == "of another request"
    assert services.consciousness.restore("alice", made.checkpoint_id, write_blocks=True).blocks_written == 2


def test_checkpoint_altered_behind_the_services_back_is_named_and_not_written(services: Services, sql: Sql) -> None:
    put(services, "persona", "calm")
    made = services.consciousness.checkpoint("alice", CHECKPOINT)
    sql("UPDATE consciousness.consciousness_checkpoints SET blocks = %s", json.dumps({"persona": "evil"}))
    assert not services.consciousness.restore("alice", made.checkpoint_id, write_blocks=False).is_intact
    with pytest.raises(Conflict):
        services.consciousness.restore("alice", made.checkpoint_id, write_blocks=True)
    assert services.consciousness.get_block("alice", "persona").value == "calm"


def test_checkpoints_are_listed_newest_first_and_by_agent(services: Services) -> None:
    made = [services.consciousness.checkpoint("alice", NewCheckpoint(f"t{number % 2}", {}, {})) for number in range(4)]
    first, after = services.consciousness.list_checkpoints("alice", 3)
    second, _ = services.consciousness.list_checkpoints("alice", 3, after=after)
    assert [view.checkpoint_id for view in first + second] == [view.checkpoint_id for view in reversed(made)]
    assert len(services.consciousness.list_checkpoints("alice", 9, checkpoint_type="t1")[0]) == 2
    for attempt in (
        lambda: services.consciousness.get_checkpoint("bob", made[0].checkpoint_id),
        lambda: services.consciousness.restore("bob", made[0].checkpoint_id, write_blocks=True),
    ):
        with pytest.raises(NotFound):
            attempt()
