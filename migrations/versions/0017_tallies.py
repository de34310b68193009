"""Counters of rows that were done and rows that died, and how long they took, which survive every restart and are exact under kills.

They begin at zero here. Workers of older code go on, and what they finish is not counted.

Revision ID: 0017
Revises: 0016
"""

from alembic import op

from migrations.sql_files import run_files

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the two tables and their grants."""
    run_files("table_tallies_v1", "grants_v13")


def downgrade() -> None:
    """Remove them; what was counted is lost."""
    op.execute("DROP TABLE memory_system.dead_tallies")
    op.execute("DROP TABLE memory_system.done_tallies")
