"""Semantic memories are found and accounted for; checkpoints keep the blocks that their identity is of.

Everything is new beside what older code uses.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

from migrations.sql_files import run_files

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the functions, the column and their grants."""
    run_files("function_search_semantic_v1", "function_semantic_identity_v1", "table_consciousness_v2", "grants_v5", "owners_v5")


def downgrade() -> None:
    """Remove them."""
    for function in (
        "memory_system.semantic_identity(text)",
        "nexus_memory.search_semantic_by_words(text, integer)",
        "nexus_memory.search_semantic_by_vector(public.vector, text, integer, integer)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("ALTER TABLE consciousness.consciousness_checkpoints DROP COLUMN blocks")
