"""A range of the ledger is sealed only once every transaction has ended that may have a number of it.

Heads of before may have signed entries of transactions that were still open as void; `integrity audit` names such ranges.

Revision ID: 0013
Revises: 0012
"""

from migrations.sql_files import replace_as_definer

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the function."""
    replace_as_definer("function_ledger_position_v2")


def downgrade() -> None:
    """Leave it: the first form signed what it should not have, and whatever calls it takes the second."""
