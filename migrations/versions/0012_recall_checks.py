"""The vector index is compared with an exact scan, by sample.

Everything is new beside what older code uses.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

from migrations.sql_files import as_definer, run_files

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


_SEARCH = "FUNCTION nexus_memory.search_by_vector(public.vector, smallint, integer, jsonb, integer)"


def upgrade() -> None:
    """Add the table and the grants: the worker compares index and exact scan by the function that searches use."""
    run_files("table_recall_checks_v1", "grants_v11")
    as_definer(f"GRANT EXECUTE ON {_SEARCH} TO nexus_worker")


def downgrade() -> None:
    """Remove them."""
    as_definer(f"REVOKE EXECUTE ON {_SEARCH} FROM nexus_worker")
    op.execute("DROP TABLE memory_system.recall_checks")
