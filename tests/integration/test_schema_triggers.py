"""What the triggers do, whoever writes: the service, plain SQL as its role, bulk loads, upserts."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.bootstrap import Services
from app.db import Database
from app.embedding.assembly import input_sha256
from app.errors import Conflict, InvalidRequest
from app.search.query import SearchQuery
from tests.factories.episodes import delete, edit, new_episode, queue_row, stored_row, vector_text
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

INSERT = "INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES ('alice', %s) RETURNING episode_id"


def insert_raw(database: Database, content: str, **columns: Any) -> UUID:
    """Insert an episode as the API's role by plain SQL."""
    values = {"agent_id": "alice", "content": content, **columns}
    names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    statement = text(f"INSERT INTO nexus_memory.zep_episodic_memory ({names}) VALUES ({marks}) RETURNING episode_id")
    with database.transaction("alice") as connection:
        found: UUID = connection.execute(statement, values).scalar_one()
    return found


def ledger_events(sql: Sql, episode_id: UUID) -> list[tuple[Any, ...]]:
    return sql("SELECT event, version FROM memory_system.ledger WHERE episode_id = %s ORDER BY ledger_seq", str(episode_id))


@pytest.mark.parametrize(("importance", "lane"), [(1.0, 0), (0.9, 0), (0.89, 1), (0.7, 1), (0.5, 2), (0.3, 2), (0.29, 3), (0.0, 3)])
def test_insert_by_the_service_is_queued_and_accepted(importance: float, lane: int, services: Services, sql: Sql) -> None:
    receipt = services.episodes.store("alice", new_episode(importance_score=importance), traceparent="00-abc")
    row = stored_row(sql, receipt.episode_id)
    assert (row.state, row.generation, row.priority, row.retry_count, row.solo, row.claim_token) == ("pending", 1, lane, 0, False, None)
    assert ledger_events(sql, receipt.episode_id) == [("accepted", 1)]
    assert sql.one("SELECT traceparent FROM memory_system.embeddings_queue") == "00-abc"


def test_insert_by_plain_sql_is_the_same(app_database: Database, workshop: Workshop, sql: Sql) -> None:
    episode_id = insert_raw(app_database, "written by hand")
    assert stored_row(sql, episode_id).state == "pending"
    assert ledger_events(sql, episode_id) == [("accepted", 1)]
    assert workshop.drain() == 1
    assert vector_text(sql, episode_id) == "present"


def test_thousand_rows_at_once_are_each_queued_and_embedded_once(app_database: Database, workshop: Workshop, sql: Sql) -> None:
    statement = (
        "INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content, importance_score)"
        " SELECT 'alice', 'bulk row number ' || n, (n % 11) / 10.0 FROM generate_series(1, 1000) n"
    )
    with app_database.transaction("alice") as connection:
        assert connection.exec_driver_sql(statement.replace("%", "%%")).rowcount == 1000
    assert sql.one("SELECT count(*) FROM memory_system.embeddings_queue WHERE state = 'pending'") == 1000
    assert sql.one("SELECT count(*) FROM memory_system.ledger WHERE event = 'accepted'") == 1000
    assert workshop.drain() == 1000
    counted = sql("SELECT state, retry_count, count(*) FROM memory_system.embeddings_queue GROUP BY 1, 2")
    assert counted == [("done", 1, 1000)]
    present = (
        "SELECT count(*) FROM nexus_memory.zep_episodic_memory WHERE embedding_sha256 = input_sha256 AND vector_norm(embedding) > 0.99"
    )
    assert sql.one(present) == 1000


def test_upsert_of_new_content_requeues_and_is_accepted_once(app_database: Database, workshop: Workshop, sql: Sql) -> None:
    episode_id = insert_raw(app_database, "before")
    workshop.drain()
    upsert = text(
        "INSERT INTO nexus_memory.zep_episodic_memory (episode_id, agent_id, content) VALUES (:id, 'alice', 'after')"
        " ON CONFLICT (episode_id) DO UPDATE SET content = excluded.content"
    )
    with app_database.transaction("alice") as connection:
        connection.execute(upsert, {"id": episode_id})
    row = stored_row(sql, episode_id)
    assert (row.state, row.generation, row.retry_count) == ("pending", 2, 0)
    assert vector_text(sql, episode_id) == "none"
    assert ledger_events(sql, episode_id) == [("accepted", 1)]


def test_new_content_starts_everything_anew(services: Services, workshop: Workshop, sql: Sql) -> None:
    receipt = services.episodes.store("alice", new_episode("the first text"))
    workshop.drain()
    assert vector_text(sql, receipt.episode_id) == "present"
    sql("UPDATE memory_system.embeddings_queue SET solo = true, last_error = 'old'")
    assert edit(services.database, "alice", receipt.episode_id, "the second text") == 2
    row = stored_row(sql, receipt.episode_id)
    assert (row.state, row.generation, row.retry_count, row.solo, row.last_error) == ("pending", 2, 0, False, None)
    assert row.processed_at is None
    assert vector_text(sql, receipt.episode_id) == "none"
    assert ledger_events(sql, receipt.episode_id) == [("accepted", 1), ("edited", 2)]
    assert sql.one("SELECT receipt_nonce FROM nexus_memory.zep_episodic_memory") != UUID(receipt.nonce)
    before = sql.one("SELECT encode(content_sha256, 'hex') FROM nexus_memory.zep_episodic_memory")
    assert before != receipt.content_sha256
    assert workshop.drain() == 1
    assert vector_text(sql, receipt.episode_id) == "present"


@pytest.mark.parametrize(
    "change",
    [
        "content = content",
        "actor = actor",
        "tags = '{new}'",
        "metadata = '{\"a\": 1}'",
        "importance_score = 0.99",
        "session_id = 'other'",
        "language = 'es'",
        "\"timestamp\" = now() - interval '1 day'",
    ],
)
def test_other_changes_make_no_work(change: str, services: Services, workshop: Workshop, sql: Sql) -> None:
    receipt = services.episodes.store("alice", new_episode(actor="bob"))
    workshop.drain()
    before = sql("SELECT xmin::text, ctid::text, * FROM memory_system.embeddings_queue")
    with services.database.transaction("alice") as connection:
        connection.exec_driver_sql(f"UPDATE nexus_memory.zep_episodic_memory SET {change}")
    assert sql("SELECT xmin::text, ctid::text, * FROM memory_system.embeddings_queue") == before
    assert vector_text(sql, receipt.episode_id) == "present"
    assert sql.one("SELECT version FROM nexus_memory.zep_episodic_memory") == 1


def test_new_actor_makes_work_but_no_version(services: Services, workshop: Workshop, sql: Sql) -> None:
    receipt = services.episodes.store("alice", new_episode(actor="bob"))
    workshop.drain()
    with services.database.transaction("alice") as connection:
        connection.exec_driver_sql("UPDATE nexus_memory.zep_episodic_memory SET actor = 'carol'")
    assert stored_row(sql, receipt.episode_id).state == "pending"
    assert vector_text(sql, receipt.episode_id) == "none"
    assert sql.one("SELECT version FROM nexus_memory.zep_episodic_memory") == 1
    workshop.drain()
    expected = input_sha256("carol", new_episode().content).hex()
    assert sql.one("SELECT encode(embedding_sha256, 'hex') FROM nexus_memory.zep_episodic_memory") == expected


def test_service_cannot_move_an_episode_to_another_agent(services: Services, sql: Sql) -> None:
    receipt = services.episodes.store("alice", new_episode())
    with pytest.raises(psycopg2.errors.IntegrityConstraintViolation, match="keeps its id and its agent"):
        sql("UPDATE nexus_memory.zep_episodic_memory SET agent_id = 'bob' WHERE episode_id = %s", str(receipt.episode_id))
    # Version and nonce follow from the content alone.
    sql("UPDATE nexus_memory.zep_episodic_memory SET version = 9, receipt_nonce = gen_random_uuid()")
    assert sql("SELECT version, receipt_nonce FROM nexus_memory.zep_episodic_memory") == [(1, str(UUID(receipt.nonce)))]


@pytest.mark.parametrize("when", ["pending", "done"])
def test_delete_clears_queue_and_chunks(when: str, services: Services, workshop: Workshop, sql: Sql) -> None:
    kept, gone = (services.episodes.store("alice", new_episode(word)).episode_id for word in ("kept", "gone"))
    if when == "done":
        workshop.drain()
    assert delete(services.database, "alice", gone)
    assert queue_row(sql, gone) is None
    assert sql.one("SELECT count(*) FROM nexus_memory.episode_chunks WHERE episode_id = %s", str(gone)) == 0
    assert queue_row(sql, kept) is not None
    assert not delete(services.database, "alice", gone)


def test_work_that_is_queued_is_not_queued_again(services: Services, workshop: Workshop, sql: Sql) -> None:
    services.episodes.store("alice", new_episode())
    before = sql("SELECT xmin::text, * FROM memory_system.embeddings_queue")
    assert workshop.queue.enqueue_missing() == 0
    assert sql("SELECT xmin::text, * FROM memory_system.embeddings_queue") == before
    workshop.drain()
    assert workshop.queue.enqueue_missing() == 0


def test_blank_content_is_refused(app_database: Database, sql: Sql) -> None:
    for content in ("", " ", "\n\t ", "\u3000", "\u2028\u00a0"):
        with pytest.raises(IntegrityError, match="ck_zep_episodic_memory_content"):
            insert_raw(app_database, content)
    assert sql.one("SELECT count(*) FROM memory_system.ledger") == 0


@pytest.mark.parametrize(
    "columns",
    [
        {"importance_score": float("nan")},
        {"importance_score": float("inf")},
        {"importance_score": 1.5},
        {"importance_score": -0.1},
        {"agent_id": ""},
        {"agent_id": "a:b"},
        {"agent_id": "x" * 129},
        {"actor": " "},
        {"session_id": ""},
        {"metadata": "[]"},
        {"idempotency_key": ""},
        {"content": "x" * 200_001},
    ],
    ids=lambda columns: "-".join(f"{name}={str(value)[:8]}" for name, value in columns.items()),
)
def test_values_out_of_bounds_are_refused(columns: dict[str, Any], catalogue: Sql) -> None:
    values = {"agent_id": "alice", "content": "fine", **columns}
    names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    with pytest.raises(psycopg2.errors.CheckViolation):
        catalogue(f"INSERT INTO nexus_memory.zep_episodic_memory ({names}) VALUES ({marks})", *values.values())


def test_nul_is_refused_and_nothing_is_stored(services: Services, app_database: Database, sql: Sql) -> None:
    with pytest.raises((DBAPIError, ValueError)):
        insert_raw(app_database, "a\0b")
    with pytest.raises(InvalidRequest):
        services.episodes.store("alice", new_episode("a\0b"))
    with pytest.raises(InvalidRequest):
        services.episodes.store("alice", new_episode(metadata={"deep": ["a\0b"]}))
    assert sql.one("SELECT count(*) FROM nexus_memory.zep_episodic_memory") == 0


def _words(letters: Callable[[int], str], most: int = 200_000) -> str:
    return " ".join(letters(number) for number in range(most))[:most].rstrip()


def _compound(n: int) -> str:
    return f"{chr(0x20000 + n % 40000)}{chr(0x20000 + n % 39999)}-{chr(0x20000 + n % 39998)}{chr(0x20000 + n % 39997)}"


HUGE = {
    "one word": "a" * 200_000,
    "rare words": _words(lambda n: f"{n:x}q"),
    "accented": _words(lambda n: "".join(chr(0xC0 + (n >> shift) % 64) for shift in (0, 6, 12))),
    "two bytes, long": _words(lambda n: f"{n}" + "ñ" * 20),
    "cjk": _words(lambda n: chr(0x4E00 + n % 20000) + chr(0x4E00 + n // 20000 * 7 + n % 7)),
    "four bytes": _words(lambda n: chr(0x20000 + n % 40000) + chr(0x20000 + n % 39999)),
    "cjk without spaces": "".join(chr(0x4E00 + n % 20000) for n in range(200_000)),
    "hyphens": _words(lambda n: f"{n:x}-{n + 1:x}-{n + 2:x}"),
    # Compounds are indexed whole and in parts: with four-byte letters even the words as written pass 1 MiB.
    "compounds": _words(_compound),
    # As written they fit, with stems they do not.
    "fewer compounds": _words(_compound, 182_000) + " plain" * 3_000,
    "addresses": _words(lambda n: f"http://h{n:x}.example.org/p{n:x}/q{n:x}"),
}


@pytest.mark.parametrize("language", ["en", "simple"])
def test_text_too_rich_for_a_tsvector_is_stored_all_the_same(language: str, services: Services, sql: Sql) -> None:
    for number, (kind, content) in enumerate(HUGE.items()):
        agent_id = f"agent{number}"
        receipt = services.episodes.store(agent_id, new_episode(content, language=language))
        assert stored_row(sql, receipt.episode_id).state == "pending"
        assert services.episodes.get(agent_id, receipt.episode_id).content == content, kind
        first = content.split(" ")[0]
        if len(first) < 1000:
            found = services.search.search(agent_id, SearchQuery(first, mode="keyword"))
            assert [hit.episode_id for hit in found.results] == [receipt.episode_id], kind


@pytest.mark.parametrize(
    ("kind", "both_fit", "written_fits"), [("compounds", False, False), ("fewer compounds", False, True), ("cjk", True, True)]
)
def test_huge_texts_try_every_way_out(kind: str, both_fit: bool, written_fits: bool, catalogue: Sql) -> None:
    for expression, fits in (
        ("to_tsvector('simple', t) || to_tsvector('english', t)", both_fit),
        ("to_tsvector('simple', t)", written_fits),
    ):
        try:
            catalogue(f"SELECT {expression} FROM (SELECT %s::text) x(t)", HUGE[kind])
        except psycopg2.errors.ProgramLimitExceeded:
            assert not fits
        else:
            assert fits


def test_accented_capitals_are_found_in_lower_case(services: Services, sql: Sql) -> None:
    receipt = services.episodes.store("alice", new_episode("EL CAMIÓN LLEGÓ ÑANDÚ", language="es"))
    lexemes = sql.one("SELECT tsvector_to_array(search_vector) FROM nexus_memory.zep_episodic_memory")
    assert "camión" in lexemes
    assert not any(letter.isupper() for lexeme in lexemes for letter in lexeme)
    for query in ("camión", "CAMIÓN", "camiones", "ñandú"):
        found = services.search.search("alice", SearchQuery(query, mode="keyword"))
        assert [hit.episode_id for hit in found.results] == [receipt.episode_id], query


def test_hashes_are_those_of_python(services: Services, sql: Sql) -> None:
    content = "línea — 日本 🎉\u200d x\u0301"
    services.episodes.store("alice", new_episode(content, actor="b"))
    assert sql.one("SELECT encode(input_sha256, 'hex') FROM nexus_memory.zep_episodic_memory") == input_sha256("b", content).hex()
    assert sql.one("SELECT content FROM nexus_memory.zep_episodic_memory") == content


def test_semantic_memory_is_queued_edited_and_cleared(app_database: Database, workshop: Workshop, sql: Sql) -> None:
    insert = text(
        "INSERT INTO nexus_memory.semantic_memories (agent_id, concept, definition, relationships, confidence_score)"
        " VALUES ('alice', 'kettle', 'it boils water', CAST(:relationships AS jsonb), 0.95) RETURNING memory_id"
    )
    with app_database.transaction("alice") as connection:
        memory_id: UUID = connection.execute(insert, {"relationships": json.dumps({"is_a": "pot"})}).scalar_one()
    assert stored_row(sql, memory_id).priority == 0
    assert workshop.drain() == 1
    stored = "SELECT embedding_sha256 = input_sha256, vector_norm(embedding) > 0.99 FROM nexus_memory.semantic_memories"
    assert sql(stored) == [(True, True)]
    with app_database.transaction("alice") as connection:
        connection.exec_driver_sql("UPDATE nexus_memory.semantic_memories SET confidence_score = 0.1")
    assert stored_row(sql, memory_id).state == "done"
    with app_database.transaction("alice") as connection:
        connection.exec_driver_sql("UPDATE nexus_memory.semantic_memories SET definition = 'it boils milk'")
    assert stored_row(sql, memory_id).state == "pending"
    assert sql.one("SELECT embedding IS NULL AND version = 2 FROM nexus_memory.semantic_memories")
    with app_database.transaction("alice") as connection:
        connection.exec_driver_sql("DELETE FROM nexus_memory.semantic_memories")
    assert queue_row(sql, memory_id) is None


def test_read_only_block_resists_and_versions_count(app_database: Database, sql: Sql) -> None:
    with app_database.transaction("alice") as connection:
        connection.exec_driver_sql("INSERT INTO consciousness.memory_blocks (agent_id, label, value) VALUES ('alice', 'persona', 'kind')")
        connection.exec_driver_sql("UPDATE consciousness.memory_blocks SET value = 'kinder'")
        connection.exec_driver_sql("UPDATE consciousness.memory_blocks SET read_only = true")
    assert sql("SELECT value, version FROM consciousness.memory_blocks") == [("kinder", 2)]
    for statement in ("UPDATE consciousness.memory_blocks SET value = 'cruel'", "DELETE FROM consciousness.memory_blocks"):
        with pytest.raises(DBAPIError, match="read-only"), app_database.transaction("alice") as connection:
            connection.exec_driver_sql(statement)


def test_working_memory_voids_its_cache_hash_when_it_changes(app_database: Database, sql: Sql) -> None:
    with app_database.transaction("alice") as connection:
        connection.exec_driver_sql(
            "INSERT INTO nexus_memory.working_memory_contexts (agent_id, context_id, active_content, cache_sha1)"
            " VALUES ('alice', 'c', '{}', sha224('x'))"
        )
        connection.exec_driver_sql("UPDATE nexus_memory.working_memory_contexts SET updated_at = now()")
    assert sql.one("SELECT cache_sha1 IS NOT NULL FROM nexus_memory.working_memory_contexts")
    with app_database.transaction("alice") as connection:
        connection.exec_driver_sql("UPDATE nexus_memory.working_memory_contexts SET active_content = '{\"a\": 1}'")
    assert sql.one("SELECT cache_sha1 IS NULL FROM nexus_memory.working_memory_contexts")


def test_project_that_is_deleted_leaves_its_episodes(services: Services, sql: Sql) -> None:
    receipt = services.episodes.store("alice", new_episode(project="apollo"))
    with services.database.transaction("alice") as connection:
        connection.exec_driver_sql("DELETE FROM nexus_memory.projects")
    assert services.episodes.get("alice", receipt.episode_id).project is None
    assert services.episodes.get("alice", receipt.episode_id).agent_id == "alice"


def test_episode_cannot_join_another_agents_project(services: Services, sql: Sql) -> None:
    services.episodes.store("bob", new_episode(project="secret"))
    project_id = sql.one("SELECT project_id FROM nexus_memory.projects")
    with pytest.raises(Conflict):
        insert_raw(services.database, "mine", project_id=project_id)
    with pytest.raises(Conflict):
        insert_raw(services.database, "mine", project_id=uuid4())
