"""Working memory is found by its words and listed in order of creation.

Everything is new beside what older code uses; the generated column rewrites the table once.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

from migrations.sql_files import run_files

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the words, their index and the function that searches them."""
    run_files("table_working_memory_contexts_v2", "function_search_working_v1", "grants_v4", "owners_v4")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP FUNCTION nexus_memory.search_working(text, integer, text)")
    op.execute("DROP INDEX nexus_memory.ix_working_memory_contexts_agent_id_seq")
    op.execute("ALTER TABLE nexus_memory.working_memory_contexts DROP COLUMN search_vector")
