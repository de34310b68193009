"""Search where indexes matter: 10,000 episodes of one agent beside another's, HNSW against the exact scan, plans that use the indexes."""

import re
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from sqlalchemy import text
from structlog.testing import capture_logs

from app.bootstrap import Services
from app.db import Database
from app.search import recall as recall_module
from app.search.recall import RecallService
from tests.factories.servers import TestServers
from tests.factories.statements import TRIGGERS_OFF, TRIGGERS_ON, Sql, copy_in

ROWS, LATENT, MOST = 12_000, 24, 50
HNSW, SIGNS = "ix_episode_chunks_embedding_model_1", "ix_episode_chunks_signs"
_FILL_EPISODES = f"""
    INSERT INTO nexus_memory.zep_episodic_memory
        (episode_id, agent_id, content, tags, metadata, importance_score, session_id, "timestamp", embedding_sha256)
    SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, CASE WHEN n % 10 = 9 THEN 'bob' ELSE 'alice' END,
           'episode about topic' || n % 97 || ' and word' || n % 1009 || CASE WHEN n % 2500 = 7 THEN ' zanzibar' ELSE '' END,
           CASE WHEN n % 100 = 0 THEN '{{rare}}'::text[] ELSE '{{common}}'::text[] END,
           jsonb_build_object('group', n % 200), (n % 100) / 100.0, 's' || n % 50, now() - n * interval '1 minute', 'x'
    FROM generate_series(0, {ROWS - 1}) n
"""
_FILL_CHUNKS = """
    INSERT INTO nexus_memory.episode_chunks
        (episode_id, model_id, chunk_no, agent_id, char_start, char_end, input_sha256, embedding, vector_sha256)
    SELECT e.episode_id, 1, 0, e.agent_id, 0, 1, e.input_sha256, v.vector, 'x'
    FROM loaded v JOIN nexus_memory.zep_episodic_memory e ON e.episode_id = ('00000000-0000-0000-0000-' || lpad(v.n::text, 12, '0'))::uuid
"""


def vectors(count: int, seed: int) -> NDArray[np.float32]:
    """Return unit vectors of 384 dimensions that vary in 24, as embeddings of texts do, with some noise."""
    basis = np.random.default_rng(7).standard_normal((LATENT, 384))
    random = np.random.default_rng(seed)
    found = random.standard_normal((count, LATENT)) @ basis + 0.3 * random.standard_normal((count, 384))
    unit: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


def literal(vector: NDArray[np.float32]) -> str:
    return orjson.dumps(np.ascontiguousarray(vector), option=orjson.OPT_SERIALIZE_NUMPY).decode()


@pytest.fixture(scope="module")
def big(servers: TestServers) -> Iterator[Sql]:
    """One agent with 10,800 embedded episodes, another with 1,200, the superuser's session set to the first."""
    with servers.database() as name, closing(servers.superuser(name)) as connection:
        sql = Sql(connection)
        index = sql.one("SELECT indexdef FROM pg_indexes WHERE indexname = %s", HNSW)
        sql(TRIGGERS_OFF)
        sql(f"DROP INDEX nexus_memory.{HNSW}")
        sql("CREATE TEMP TABLE loaded (n int PRIMARY KEY, vector public.vector(384))")
        sql(_FILL_EPISODES)
        lines = StringIO("".join(f"{n}\t{literal(vector)}\n" for n, vector in enumerate(vectors(ROWS, 1))))
        copy_in(connection, "COPY loaded FROM STDIN", lines)
        sql(_FILL_CHUNKS)
        sql(TRIGGERS_ON)
        sql(index)
        # As autovacuum does: only what it has seen can be read from an index alone.
        sql("VACUUM (ANALYZE)")
        sql("SELECT set_config('app.current_agent_id', 'alice', false)")
        for function in ("search_by_vector", "search_by_words", "list_episodes"):
            _make_explaining_twin(sql, function)
        yield sql


def _make_explaining_twin(sql: Sql, function: str) -> None:
    """Make `<function>_explained`, equal but for EXPLAIN before each inner query, of the same owner."""
    source = sql.one("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s", function)
    twin = source.replace(f"nexus_memory.{function}(", f"nexus_memory.{function}_explained(", 1)
    twin = re.sub(r"RETURNS TABLE\([^)]*\)|RETURNS SETOF uuid", "RETURNS SETOF text", twin, count=1)
    twin, replaced = re.subn(r"RETURN QUERY EXECUTE (?=format\(|scoring)", "RETURN QUERY EXECUTE 'EXPLAIN ' || ", twin)
    # EXPLAIN is refused in a function that is not volatile.
    twin = twin.replace(" STABLE SECURITY DEFINER", " VOLATILE SECURITY DEFINER")
    assert replaced and "VOLATILE" in twin
    with sql.connection.cursor() as cursor:
        cursor.execute(twin)
    arguments = sql.one("SELECT oid::regprocedure::text FROM pg_proc WHERE proname = %s", f"{function}_explained")
    sql(f"GRANT CREATE ON SCHEMA nexus_memory TO nexus_definer; ALTER FUNCTION {arguments} OWNER TO nexus_definer")


def by_vector(
    sql: Sql,
    vector: NDArray[np.float32],
    filters: dict[str, Any],
    exact_below: int | None,
    most: int = MOST,
    function: str = "search_by_vector",
) -> list[tuple[Any, ...]]:
    return sql(
        f"SELECT * FROM nexus_memory.{function}(%s::public.vector, 1::smallint, %s, %s::jsonb, %s)",
        literal(vector),
        most,
        orjson.dumps(filters).decode(),
        exact_below,
    )


FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "half": {"min_importance": 0.5},
    "one in a hundred": {"tags_any": ["rare"]},
    "one in two hundred": {"metadata": {"group": 17}},
    "one session": {"session_id": "s3"},
    "nothing": {"session_id": "unknown"},
}


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_hnsw_returns_as_many_as_the_exact_scan_and_the_same(name: str, big: Sql) -> None:
    found = wanted = 0
    for query in vectors(12, 2):
        exact = by_vector(big, query, FILTERS[name], 1_000_000)
        through_index = by_vector(big, query, FILTERS[name], 1)
        nearest = {row[0] for row in exact}
        # The caller takes the best of each episode, and no more than it asked for.
        returned = list(dict.fromkeys(row[0] for row in sorted(through_index, key=lambda row: -row[1])))[:MOST]
        assert len(returned) == len(exact), "a filtered search returned too little"
        assert all(
            big.one("SELECT agent_id FROM nexus_memory.zep_episodic_memory WHERE episode_id = %s", i) == "alice" for i in returned[:2]
        )
        found += len(nearest.intersection(returned))
        wanted += len(nearest)
    assert wanted == 0 or found / wanted >= 0.99, f"recall {found / wanted:.4f}"


def test_exact_scan_is_that_of_numpy(big: Sql) -> None:
    stored = vectors(ROWS, 1)
    alices = np.array([n % 10 != 9 for n in range(ROWS)])
    for query in vectors(3, 3):
        cosines = np.where(alices, stored @ query, -2.0)
        expected = [f"00000000-0000-0000-0000-{n:012}" for n in np.argsort(-cosines)[:MOST]]
        rows = by_vector(big, query, {}, 1_000_000)
        assert [row[0] for row in rows] == expected
        assert [row[1] for row in rows] == pytest.approx(np.sort(cosines)[::-1][:MOST].tolist(), abs=1e-5)


def plan(rows: list[tuple[Any, ...]]) -> str:
    return "\n".join(row[0] for row in rows)


def test_vector_search_of_a_large_agent_uses_hnsw(big: Sql) -> None:
    explained = plan(by_vector(big, vectors(1, 4)[0], {}, 1, function="search_by_vector_explained"))
    assert HNSW in explained


def test_small_agents_are_scanned_exactly(big: Sql) -> None:
    explained = plan(by_vector(big, vectors(1, 4)[0], {}, 1_000_000, function="search_by_vector_explained"))
    assert HNSW not in explained


@pytest.mark.parametrize(
    ("filters", "all_chunks", "index"),
    [
        ({}, 12_000, SIGNS),
        ({}, 4_000, HNSW),
        ({"min_importance": 0.0}, 12_000, HNSW),
        ({"min_importance": 0.0}, 20_000_000, None),
    ],
)
def test_cheapest_way_is_taken(filters: dict[str, Any], all_chunks: int, index: str | None, big: Sql) -> None:
    """HNSW meets alice's 10,800 chunks at once among few others; among millions it would read in vain."""
    try:
        big("UPDATE pg_class SET reltuples = %s WHERE oid = 'nexus_memory.episode_chunks'::regclass", all_chunks)
        explained = plan(by_vector(big, vectors(1, 4)[0], filters, None, function="search_by_vector_explained"))
    finally:
        big("ANALYZE nexus_memory.episode_chunks")
    assert {name for name in (HNSW, SIGNS) if name in explained} == ({index} if index else set())


def test_signs_are_read_from_their_index_alone(big: Sql) -> None:
    explained = plan(by_vector(big, vectors(1, 4)[0], {}, None, function="search_by_vector_explained"))
    assert f"Index Only Scan using {SIGNS}" in explained


def test_by_signs_the_nearest_are_found(big: Sql) -> None:
    found = 0
    for query in vectors(20, 8):
        exact = by_vector(big, query, {}, 1_000_000, most=200)[:10]
        by_signs = by_vector(big, query, {}, None, most=200)
        assert len(by_signs) == 200
        assert [row[1] for row in by_signs] == sorted((row[1] for row in by_signs), reverse=True)
        found += len(set(exact) & set(by_signs[:10]))
    assert found / 200 >= 0.99


def test_without_a_filter_the_answer_is_that_of_a_filter_that_everything_passes(big: Sql) -> None:
    """The one joins only the nearest chunks, the other all."""
    for query in vectors(5, 5):
        assert by_vector(big, query, {}, 1_000_000) == by_vector(big, query, {"min_importance": 0.0}, 1_000_000)


@pytest.mark.parametrize("exact_below", [1_000_000, None], ids=["exact", "by signs"])
def test_stale_chunks_hide_nobody_though_they_are_the_nearest(exact_below: int | None, big: Sql) -> None:
    (query,) = vectors(1, 6)
    in_order = [row[0] for row in by_vector(big, query, {}, 1_000_000, most=4 * MOST)]
    try:
        big("UPDATE nexus_memory.episode_chunks SET input_sha256 = 'stale' WHERE episode_id = ANY (%s::uuid[])", in_order[: 2 * MOST])
        rows = by_vector(big, query, {}, exact_below)
    finally:
        big(
            "UPDATE nexus_memory.episode_chunks c SET input_sha256 = e.input_sha256 FROM nexus_memory.zep_episodic_memory e"
            " WHERE e.episode_id = c.episode_id AND c.input_sha256 = 'stale'"
        )
    assert list(dict.fromkeys(row[0] for row in rows)) == in_order[2 * MOST : 3 * MOST]


@pytest.mark.parametrize("query", ["zanzibar", "word17 zanzibar", "topic5 word1008"])
def test_word_search_uses_the_gin_index(query: str, big: Sql) -> None:
    explained = plan(big("SELECT * FROM nexus_memory.search_by_words_explained(%s, 50, '{}')", query))
    assert "ix_zep_episodic_memory_search_vector" in explained, explained
    assert "Seq Scan on zep_episodic_memory" not in explained


def test_word_search_finds_all_that_hold_a_rare_word(big: Sql) -> None:
    rows = big("SELECT episode_id FROM nexus_memory.search_by_words('zanzibar', 50, '{}')")
    assert sorted(row[0][-5:] for row in rows) == ["00007", "02507", "05007", "07507", "10007"]


def by_words(sql: Sql, query: str, filters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    return sql("SELECT * FROM nexus_memory.search_by_words(%s, %s, %s::jsonb)", query, MOST, orjson.dumps(filters or {}).decode())


def test_rare_word_decides_beside_one_that_everything_holds(big: Sql) -> None:
    rows = by_words(big, "episode zanzibar")
    assert sorted(row[0][-5:] for row in rows[:5]) == ["00007", "02507", "05007", "07507", "10007"]
    assert len(rows) == len({row[0] for row in rows}) == MOST, "those that hold the other word come after"
    assert rows[4][1] > 10 * rows[5][1], "a word that is everywhere says little"
    assert rows[4][2] == pytest.approx(1.0) and rows[5][2] < 0.1


def test_words_are_weighed_by_a_sample_about_as_by_all(big: Sql) -> None:
    """The sample says of three words that are everywhere, in one of a hundred and in one of a thousand, which says how much."""
    counts = dict(big("SELECT w, count(*) FROM nexus_memory.zep_episodic_memory e, unnest(ARRAY['episode', 'topic5', 'word17']) w"
                      " WHERE e.agent_id = 'alice' AND e.search_vector @@ quote_literal(w)::tsquery GROUP BY w"))  # fmt: skip
    held = ROWS - ROWS // 10
    idf = {word: np.log(1 + (held - count + 0.5) / (count + 0.5)) for word, count in counts.items()}
    covered = {frozenset(row[0]): row[1] for row in big(
        "SELECT ARRAY(SELECT w FROM unnest(ARRAY['episode', 'topic5', 'word17']) w WHERE e.search_vector @@ quote_literal(w)::tsquery),"
        " max(s.coverage) FROM nexus_memory.search_by_words('episode topic5 word17', 200, '{}') s"
        " JOIN nexus_memory.zep_episodic_memory e USING (episode_id) GROUP BY 1")}  # fmt: skip
    assert len(covered) >= 2
    for words, coverage in covered.items():
        assert coverage == pytest.approx(sum(idf[word] for word in words) / sum(idf.values()), abs=0.05), words


def test_words_under_a_filter_that_no_rare_word_passes_find_as_many_as_there_are(big: Sql) -> None:
    assert len(by_words(big, "episode zanzibar", {"tags_any": ["rare"]})) == MOST
    assert len(by_words(big, "episode", {"session_id": "s3"})) == MOST


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ("{}", "ix_zep_episodic_memory_agent_id_timestamp"),
        ('{"tags_all": ["rare"], "min_importance": 0.99}', "ix_zep_episodic_memory_tags"),
        ('{"metadata": {"group": 17}}', "ix_zep_episodic_memory_metadata"),
        ('{"session_id": "s3"}', "ix_zep_episodic_memory_session"),
    ],
)
def test_list_uses_the_index_that_narrows_it_most(filters: str, index: str, big: Sql) -> None:
    explained = plan(big("SELECT * FROM nexus_memory.list_episodes_explained(%s, true, now(), 9223372036854775807, 20)", filters))
    assert index in explained, explained
    assert "Seq Scan on zep_episodic_memory" not in explained


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        ("agent_id = 'alice' ORDER BY \"timestamp\" DESC, seq DESC LIMIT 10", "ix_zep_episodic_memory_agent_id_timestamp"),
        ("agent_id = 'bob' AND seq > 100 ORDER BY seq LIMIT 500", "ix_zep_episodic_memory_agent_id_seq"),
        ("tags @> '{rare}'", "ix_zep_episodic_memory_tags"),
        ("metadata @> '{\"group\": 17}'", "ix_zep_episodic_memory_metadata"),
        ("agent_id = 'alice' AND idempotency_key = 'k'", "uq_zep_episodic_memory_agent_id_idempotency_key"),
    ],
)
def test_index_is_used_for_what_it_was_made(condition: str, index: str, big: Sql) -> None:
    explained = plan(big(f"EXPLAIN SELECT 1 FROM nexus_memory.zep_episodic_memory WHERE {condition}"))
    assert index in explained, explained


def test_claim_and_reaper_use_the_partial_indexes_beside_many_done_rows(big: Sql) -> None:
    big(TRIGGERS_OFF)
    big(
        "INSERT INTO memory_system.embeddings_queue (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, state,"
        " claim_token)"
        " SELECT 'episodic', e.episode_id, 1, e.agent_id, 'x', 1, CASE WHEN e.seq % 100 < 30 THEN 'pending' WHEN e.seq % 100 = 30"
        " THEN 'processing' ELSE 'done' END, CASE WHEN e.seq % 100 = 30 THEN gen_random_uuid() END FROM nexus_memory.zep_episodic_memory e"
    )
    big(TRIGGERS_ON)
    big("ANALYZE memory_system.embeddings_queue")
    queue = "EXPLAIN SELECT target_id FROM memory_system.embeddings_queue WHERE"
    ready = plan(big(f"{queue} state = 'pending' AND due_at <= now() ORDER BY priority, due_at, target_id LIMIT 256"))
    assert "ix_embeddings_queue_ready" in ready
    expired = plan(big(f"{queue} state = 'processing' AND lease_until < now() ORDER BY target_id LIMIT 1000"))
    assert "ix_embeddings_queue_processing" in expired
    open_of_agent = plan(big(f"{queue} agent_id = 'bob' AND state IN ('pending', 'processing')"))
    assert "ix_embeddings_queue_open" in open_of_agent


@pytest.fixture
def recall(big: Sql, servers: TestServers) -> Iterator[RecallService]:
    """As beat's task has it, on that database."""
    settings = servers.settings_for(big.one("SELECT current_database()"))
    database = Database(settings, "nexus_worker", "nexus test")
    yield RecallService(database, exact_below=5_000)
    database.close()
    big("DELETE FROM memory_system.recall_checks")


def test_index_is_compared_with_the_exact_scan_and_recorded(recall: RecallService, big: Sql) -> None:
    found = recall.check(samples=10)
    assert found is not None
    assert found.samples == 10
    assert 0.95 <= found.mean <= 1
    assert big("SELECT samples, recall, worst FROM memory_system.recall_checks") == [(10, found.mean, found.worst)]


def test_index_that_finds_the_wrong_ones_is_noticed(recall: RecallService, big: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a graph that has gone bad: through the index only one episode in a hundred can be found."""
    filters = """CASE WHEN :exact_below IS NULL THEN '{"tags_any": ["rare"]}' ELSE '{}' END"""
    bad = str(recall_module._NEAREST).replace("'{}'", filters)
    monkeypatch.setattr(recall_module, "_NEAREST", text(bad))
    with capture_logs() as lines:
        found = recall.check(samples=4)
    assert found is not None
    assert found.mean < 0.5
    assert [line["event"] for line in lines] == ["index_recall_low"]


def test_small_agents_are_exact_and_need_no_check(services: Services, worker_database: Database) -> None:
    assert RecallService(worker_database).check() is None
    assert services.stats.recall() is None
