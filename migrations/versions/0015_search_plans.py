"""Search by vector takes the cheaper of index and scan for each agent and joins only what is nearest; turns are read in one go.

Older code goes on: names, arguments and answers of the functions are as before.

Revision ID: 0015
Revises: 0014
"""

from migrations.sql_files import replace_as_definer

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the functions."""
    replace_as_definer("function_search_by_vector_v2", "function_turns_of_v2")


def downgrade() -> None:
    """Put back those of before."""
    replace_as_definer("function_turns_of_v1", "function_search_by_vector_v1")
