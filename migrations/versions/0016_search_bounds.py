"""Search by words is bounded by the rarest of them for large agents; search by vector looks at signs first for those of middle size.

Adding the column rewrites the table of vectors: about two minutes for a million of them, in which nothing reads or writes vectors.
Older code goes on: names, arguments and answers of the functions are as before, and no code names the column.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

from migrations.sql_files import replace_as_definer, run_files

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and its index, replace the functions."""
    run_files("table_episode_chunks_v2")
    replace_as_definer("function_search_by_vector_v3", "function_search_by_words_v2")


def downgrade() -> None:
    """Put back the functions of before, drop the column and with it its index."""
    replace_as_definer("function_search_by_words_v1", "function_search_by_vector_v2")
    op.execute("ALTER TABLE nexus_memory.episode_chunks DROP COLUMN signs")
