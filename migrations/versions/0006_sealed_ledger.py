"""The ledger is sealed: signed heads over Merkle trees, from which anyone can check a receipt.

No head was ever written before this revision, so the new columns need no value for old rows.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

from migrations.sql_files import run_files

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, the functions and their grants."""
    run_files("table_ledger_heads_v2", "function_ledger_sealing_v1", "grants_v6", "owners_v6")


def downgrade() -> None:
    """Remove them, and with them every head: the ranges are sealed anew after the next upgrade."""
    for function in (
        "memory_system.last_seq()",
        "memory_system.ledger_entry_of(uuid, integer, text)",
        "memory_system.add_ledger_head(bigint, bigint, bigint, integer, bytea, bytea, bytea, bytea, bytea, timestamptz)",
        "memory_system.ledger_entries(bigint, bigint)",
        "memory_system.ledger_position()",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("REVOKE SELECT, INSERT ON memory_system.ledger_heads FROM nexus_definer")
    op.execute("REVOKE SELECT ON SEQUENCE memory_system.ledger_ledger_seq_seq, nexus_memory.zep_episodic_memory_seq_seq FROM nexus_definer")
    op.execute("DELETE FROM memory_system.ledger_heads")
    op.execute("ALTER TABLE memory_system.ledger_heads DROP COLUMN tree_root, DROP COLUMN public_key")
