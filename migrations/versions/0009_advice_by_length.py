"""The advice on workers weighs rows by length and only what is due; counts leave unused models out; the identity reads less.

The column may be absent from what older code writes, and older code reads the functions' columns by name.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

from migrations.sql_files import replace_as_definer, run_files

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and replace the functions."""
    op.execute("DROP FUNCTION memory_system.queue_lanes()")
    run_files("table_workers_v3", "function_queue_lanes_v2", "grants_v8", "owners_v8")
    replace_as_definer("function_queue_counts_v2", "function_accounting_identity_v2")


def downgrade() -> None:
    """Put them back as they were."""
    replace_as_definer("function_accounting_identity_v1", "function_queue_counts_v1")
    op.execute("DROP FUNCTION memory_system.queue_lanes()")
    run_files("function_queue_lanes_v1", "grants_v8", "owners_v8")
    op.execute("ALTER TABLE memory_system.workers DROP COLUMN chars_per_second")
