"""Semantic memories have vectors of each model in use, so a change of model is never seen in a search; a way back can be given up.

Older code writes vectors onto the memories' rows only: the beat finds what is missing here and enqueues it anew.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

from migrations.sql_files import replace_as_definer, run_files

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table with what is on the memories' rows, its indexes, and the functions that use it."""
    run_files("table_embedding_models_v3", "table_semantic_vectors_v1", "policies_semantic_vectors_v1")
    models = op.get_bind().exec_driver_sql("SELECT model_id, dimensions FROM memory_system.embedding_models ORDER BY model_id").all()
    for model_id, dimensions in models:
        op.execute(
            f"CREATE INDEX ix_semantic_vectors_embedding_model_{int(model_id)} ON nexus_memory.semantic_vectors"
            f" USING hnsw ((embedding::public.vector({int(dimensions)})) public.vector_cosine_ops) WITH (m = 16, ef_construction = 64)"
            f" WHERE model_id = {int(model_id)}"
        )
    op.execute("DROP FUNCTION nexus_memory.search_semantic_by_vector(public.vector, text, integer, integer)")
    run_files("function_search_semantic_by_vector_v2", "function_repair_semantic_vectors_v1", "grants_v9", "owners_v9")
    replace_as_definer(
        "function_trigger_semantic_embedding_v2",
        "function_enqueue_for_model_v2",
        "function_enqueue_missing_v3",
        "function_drop_model_work_v2",
        "function_agent_rows_v2",
        "function_semantic_identity_v2",
    )


def downgrade() -> None:
    """Put back the functions and the index, and drop the table: of semantic memories only the active model's vectors stay."""
    replace_as_definer(
        "function_semantic_identity_v1",
        "function_agent_rows_v1",
        "function_drop_model_work_v1",
        "function_enqueue_missing_v2",
        "function_enqueue_for_model_v1",
        "function_trigger_semantic_embedding_v1",
    )
    op.execute("DROP FUNCTION nexus_memory.search_semantic_by_vector(public.vector, smallint, integer, integer)")
    op.execute("DROP FUNCTION nexus_memory.search_semantic_by_words(text, integer)")
    op.execute("DROP FUNCTION memory_system.repair_semantic_vectors(uuid[])")
    op.execute("REVOKE UPDATE (updated_at) ON nexus_memory.semantic_memories FROM nexus_definer")
    op.execute("DROP TABLE nexus_memory.semantic_vectors")
    dimensions = int(op.get_bind().exec_driver_sql("SELECT dimensions FROM memory_system.embedding_models WHERE is_active").scalar_one())
    op.execute(
        f"ALTER TABLE nexus_memory.semantic_memories ALTER COLUMN embedding TYPE public.vector({dimensions})"
        f" USING CASE WHEN public.vector_dims(embedding) = {dimensions} THEN embedding END"
    )
    op.execute(
        "CREATE INDEX ix_semantic_memories_embedding ON nexus_memory.semantic_memories"
        " USING hnsw (embedding public.vector_cosine_ops) WITH (m = 16, ef_construction = 64)"
    )
    run_files("function_search_semantic_v1")
    for function in ("search_semantic_by_vector(public.vector, text, integer, integer)", "search_semantic_by_words(text, integer)"):
        op.execute(f"GRANT EXECUTE ON FUNCTION nexus_memory.{function} TO nexus_app, nexus_ro")
        op.execute("GRANT CREATE ON SCHEMA nexus_memory TO nexus_definer")
        op.execute(f"ALTER FUNCTION nexus_memory.{function} OWNER TO nexus_definer")
        op.execute("REVOKE CREATE ON SCHEMA nexus_memory FROM nexus_definer")
    op.execute("ALTER TABLE memory_system.embedding_models DROP COLUMN activated_at")
