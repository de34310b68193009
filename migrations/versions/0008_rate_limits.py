"""A key may have a rate limit of its own, and what a worker does by order is audited.

The column may be absent from what older code writes.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

from migrations.sql_files import run_files

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the index."""
    run_files("table_administration_v2")


def downgrade() -> None:
    """Remove them."""
    op.execute("REVOKE INSERT ON memory_system.audit_log FROM nexus_worker")
    op.execute("DROP INDEX memory_system.ix_audit_log_at")
    op.execute("ALTER TABLE memory_system.api_keys DROP COLUMN rate_limit_per_minute")
