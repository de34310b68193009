"""Episodes listed, put in context, forgotten and imported: functions for what row security would make slow or hide.

Everything is new beside what older code uses.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

from migrations.sql_files import run_files

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the functions, the index of sessions, and their grants."""
    run_files(
        "index_episodes_v3",
        "function_list_episodes_v1",
        "function_forget_episodes_v1",
        "function_forget_others_v1",
        "function_agent_rows_v1",
        "function_known_episodes_v1",
        "grants_v3",
        "owners_v3",
    )


def downgrade() -> None:
    """Remove them."""
    for function in (
        "memory_system.known_episodes(uuid[])",
        "memory_system.agent_rows()",
        "memory_system.forget_others(integer)",
        "memory_system.forget_episodes(integer)",
        "nexus_memory.list_episodes(jsonb, boolean, timestamptz, bigint, integer)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP INDEX nexus_memory.ix_zep_episodic_memory_session")
    op.execute("REVOKE UPDATE (read_only) ON consciousness.memory_blocks FROM nexus_definer")
    op.execute(
        "REVOKE SELECT, DELETE ON consciousness.memory_blocks, consciousness.consciousness_checkpoints, memory_system.agent_models,"
        " nexus_memory.working_memory_contexts FROM nexus_definer"
    )
    op.execute("REVOKE DELETE ON nexus_memory.semantic_memories, nexus_memory.projects FROM nexus_definer")
