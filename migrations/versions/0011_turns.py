"""Search looks at the turns beside what it found.

Everything is new beside what older code uses.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

from migrations.sql_files import run_files

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the function and its grants."""
    run_files("function_turns_of_v1", "grants_v10", "owners_v10")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP FUNCTION nexus_memory.turns_of(uuid[])")
