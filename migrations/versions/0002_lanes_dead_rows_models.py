"""A queue whose claims stay flat under a held snapshot, dead rows that can be read and replayed, and a second model beside the first.

The columns are new and may be absent from what older code writes; the triggers' functions are replaced in place.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

from migrations.sql_files import replace_as_definer, run_files

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what the second revision needs; grants come before the change of owner, which takes them along."""
    run_files(
        "table_embeddings_queue_v2",
        "table_embedding_models_v2",
        "table_workers_v2",
        "table_agent_models_v1",
        "policies_agent_models_v1",
        "function_dead_causes_v1",
        "function_dead_rows_v1",
        "function_replay_dead_v1",
        "function_queue_lanes_v1",
        "function_enqueue_for_model_v1",
        "function_drop_model_work_v1",
        "grants_v2",
        "owners_v2",
    )
    replace_as_definer(
        "function_trigger_generate_embedding_v2", "function_trigger_generate_embedding_row_v2", "function_enqueue_missing_v2"
    )


def downgrade() -> None:
    """Go back to one model, the shipped one.

    Refused while another is active or a change of model is under way: the code of the first revision could not load it, and would
    take the target's work for its own.
    """
    others = op.get_bind().exec_driver_sql(
        "SELECT string_agg(name, ', ') FROM memory_system.embedding_models WHERE is_target OR (is_active AND model_id <> 1)"
    )
    if names := others.scalar_one():
        raise RuntimeError(f"{names} is in use: `python -m app embedding rollback`, or `embedding migrate --model ''`, then downgrade")
    replace_as_definer(
        "function_trigger_generate_embedding_v1", "function_trigger_generate_embedding_row_v1", "function_enqueue_missing_v1"
    )
    for function in (
        "drop_model_work(smallint, integer)",
        "enqueue_for_model(text, smallint, integer)",
        "queue_lanes()",
        "replay_dead(uuid[], text, timestamptz, integer)",
        "dead_rows(text, uuid, integer)",
        "dead_causes(integer)",
    ):
        op.execute(f"DROP FUNCTION memory_system.{function}")
    op.execute("DROP TABLE memory_system.agent_models")
    op.execute("ALTER TABLE memory_system.workers DROP COLUMN problem")
    op.execute("DROP INDEX memory_system.uq_embedding_models_is_target")
    op.execute("ALTER TABLE memory_system.embedding_models DROP COLUMN is_target, DROP COLUMN source")
    op.execute("DROP INDEX nexus_memory.ix_episode_chunks_input")
    op.execute("CREATE INDEX ix_episode_chunks_agent_id_model_id ON nexus_memory.episode_chunks (agent_id, model_id)")
    op.execute("DROP INDEX memory_system.ix_embeddings_queue_dead")
    op.execute("CREATE INDEX ix_embeddings_queue_dead ON memory_system.embeddings_queue (target_id) WHERE state = 'dead'")
    op.execute("ALTER TABLE memory_system.embeddings_queue DROP COLUMN claimed_at")
    op.execute("CREATE INDEX ix_embeddings_queue_processing ON memory_system.embeddings_queue (target_id) WHERE state = 'processing'")
