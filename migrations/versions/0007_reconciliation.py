"""Vectors that are missing, stale or altered are repaired range by range.

Everything is new beside what older code uses.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

from migrations.sql_files import run_files

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the function and its grants."""
    run_files("function_repair_vectors_v1", "grants_v7", "owners_v7")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP FUNCTION memory_system.repair_vectors(uuid[])")
    op.execute("REVOKE UPDATE (updated_at) ON nexus_memory.zep_episodic_memory FROM nexus_definer")
