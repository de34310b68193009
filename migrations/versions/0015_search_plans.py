"""Search by vector takes the cheaper of index and scan for each agent, and joins only what is nearest.

Older code goes on: the function's name, arguments and answer are as before.

Revision ID: 0015
Revises: 0014
"""

from migrations.sql_files import replace_as_definer

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the function."""
    replace_as_definer("function_search_by_vector_v2")


def downgrade() -> None:
    """Put back the one of before."""
    replace_as_definer("function_search_by_vector_v1")
