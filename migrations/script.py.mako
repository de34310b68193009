"""${message}: why this change is made.

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
"""

from migrations.sql_files import run_files

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "run_files()"}


def downgrade() -> None:
    ${downgrades if downgrades else "run_files()"}
