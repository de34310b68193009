"""Forgetting an agent locks its working memories in the order of every other writer, as it did the rest.

Older code goes on: name, arguments and answer of the function are as before.

Revision ID: 0018
Revises: 0017
"""

from alembic import op

from migrations.sql_files import replace_as_definer, run_files

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Grant what a lock takes, replace the function."""
    run_files("grants_v14")
    replace_as_definer("function_forget_others_v3")


def downgrade() -> None:
    """Put back the function and the grants of before."""
    replace_as_definer("function_forget_others_v2")
    op.execute("REVOKE UPDATE (updated_at) ON nexus_memory.working_memory_contexts FROM nexus_definer")
