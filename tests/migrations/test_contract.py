"""The columns that others rely on: clients of the seeds' tables, dumps, dashboards. A change here breaks somebody."""

import pytest

from tests.factories.statements import Sql

EPISODES = {
    "episode_id": ("uuid", True),
    "seq": ("bigint", True),
    "agent_id": ("text", True),
    "session_id": ("text", False),
    "actor": ("text", False),
    "action_type": ("text", True),
    "content": ("text", True),
    "version": ("integer", True),
    "content_sha256": ("bytea", True),
    "timestamp": ("timestamp with time zone", True),
    "importance_score": ("double precision", True),
    "tags": ("text[]", True),
    "metadata": ("jsonb", True),
    "project_id": ("uuid", False),
    "language": ("text", True),
    "idempotency_key": ("text", False),
    "request_sha256": ("bytea", False),
    "embedding": ("vector(384)", False),
    "embedding_version": ("text", False),
    "embedding_sha256": ("bytea", False),
    "search_vector": ("tsvector", True),
    "created_at": ("timestamp with time zone", True),
    "updated_at": ("timestamp with time zone", True),
}
CONTRACT: dict[str, dict[str, tuple[str, bool]]] = {
    "nexus_memory.zep_episodic_memory": EPISODES,
    "nexus_memory.episode_chunks": {
        "episode_id": ("uuid", True),
        "model_id": ("smallint", True),
        "chunk_no": ("integer", True),
        "agent_id": ("text", True),
        "char_start": ("integer", True),
        "char_end": ("integer", True),
        "input_sha256": ("bytea", True),
        "embedding": ("vector", True),
        "vector_sha256": ("bytea", True),
    },
    "nexus_memory.projects": {"project_id": ("uuid", True), "agent_id": ("text", True), "name": ("text", True)},
    "nexus_memory.working_memory_contexts": {
        "seq": ("bigint", True),
        "agent_id": ("text", True),
        "context_id": ("text", True),
        "session_id": ("text", False),
        "context_type": ("text", True),
        "active_content": ("jsonb", True),
        "priority": ("text", True),
        "ttl_seconds": ("integer", False),
        "expires_at": ("timestamp with time zone", False),
        "cache_sha1": ("bytea", False),
    },
    "nexus_memory.semantic_memories": {
        "agent_id": ("text", True),
        "concept": ("text", True),
        "definition": ("text", True),
        "relationships": ("jsonb", True),
        "confidence_score": ("double precision", True),
        "source_episodes": ("uuid[]", True),
        "embedding": ("vector(384)", False),
    },
    "nexus_memory.semantic_vectors": {
        "memory_id": ("uuid", True),
        "model_id": ("smallint", True),
        "agent_id": ("text", True),
        "input_sha256": ("bytea", True),
        "embedding": ("vector", True),
        "vector_sha256": ("bytea", True),
    },
    "memory_system.embeddings_queue": {
        "target_kind": ("text", True),
        "target_id": ("uuid", True),
        "model_id": ("smallint", True),
        "state": ("text", True),
        "retry_count": ("smallint", True),
        "last_error": ("text", False),
        "enqueued_at": ("timestamp with time zone", True),
        "processed_at": ("timestamp with time zone", False),
    },
    "memory_system.embedding_models": {
        "model_id": ("smallint", True),
        "name": ("text", True),
        "version": ("text", True),
        "dimensions": ("integer", True),
        "fingerprint": ("text", True),
        "is_active": ("boolean", True),
    },
    "memory_system.ledger": {
        "ledger_seq": ("bigint", True),
        "episode_id": ("uuid", True),
        "agent_id": ("text", True),
        "version": ("integer", True),
        "event": ("text", True),
        "leaf": ("bytea", True),
        "at": ("timestamp with time zone", True),
    },
    "consciousness.consciousness_checkpoints": {
        "agent_id": ("text", True),
        "checkpoint_type": ("text", True),
        "state_data": ("jsonb", True),
        "identity_hash": ("text", True),
        "continuity_score": ("double precision", True),
        "metadata": ("jsonb", True),
    },
    "consciousness.memory_blocks": {
        "agent_id": ("text", True),
        "label": ("text", True),
        "value": ("text", True),
        "read_only": ("boolean", True),
        "version": ("integer", True),
    },
}


@pytest.mark.parametrize("table", sorted(CONTRACT))
def test_columns_have_their_names_types_and_nullability(table: str, catalogue: Sql) -> None:
    found = {
        name: (type_, not_null)
        for name, type_, not_null in catalogue(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            table,
        )
    }
    assert {name: found.get(name) for name in CONTRACT[table]} == CONTRACT[table]


@pytest.mark.parametrize("table", ["consciousness.distributed_consensus", "consciousness.instance_network", "memory_system.workers"])
def test_tables_of_later_phases_exist(table: str, catalogue: Sql) -> None:
    assert catalogue.one("SELECT to_regclass(%s) IS NOT NULL", table)


def test_seeds_names_of_triggers_and_function_hold(catalogue: Sql) -> None:
    triggers = catalogue(
        "SELECT tgname, tgfoid::regproc::text FROM pg_trigger"
        " WHERE tgrelid = 'nexus_memory.zep_episodic_memory'::regclass AND NOT tgisinternal"
    )
    on_episodes = {row[0]: row[1] for row in triggers}
    assert on_episodes["auto_generate_embedding"] == "nexus_memory.trigger_generate_embedding"
    assert "auto_update_embedding" in on_episodes


def test_vectors_have_one_hnsw_index_as_specified(catalogue: Sql) -> None:
    definition = catalogue.one("SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_episode_chunks_embedding_model_1'")
    assert "hnsw" in definition
    assert "vector_cosine_ops" in definition
    assert "m='16', ef_construction='64'" in definition
    assert definition.endswith("WHERE (model_id = 1)")
    # The copy on the episode is not indexed.
    on_episodes = [row[0] for row in catalogue("SELECT indexdef FROM pg_indexes WHERE tablename = 'zep_episodic_memory'")]
    assert not any("hnsw" in index for index in on_episodes)
