"""Verification covers what an episode holds beside its content, and vectors as a whole, and walks rows; forgetting locks in order.

Older code goes on: what it changes of an episode's tags or metadata is not noted, and shows as altered until it is written again.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

from migrations.sql_files import replace_as_definer, run_files

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_ATTRIBUTES = "text, text, text, timestamptz, double precision, text[], jsonb, jsonb, jsonb, text, text, timestamptz"
_COPY = "bytea, public.vector, text, memory_system.embedding_models"


def upgrade() -> None:
    """Add the column and the functions that write and read it; last_seq stays for older code."""
    run_files("table_ledger_v3", "function_attributes_sha256_v1", "function_note_attributes_v1", "function_claims_all_v1")
    run_files("function_vectors_are_intact_v1", "grants_v12", "owners_v11")
    replace_as_definer(
        "function_trigger_record_acceptance_v2",
        "function_record_edit_v2",
        "function_delete_episode_v2",
        "function_forget_episodes_v2",
        "function_forget_others_v2",
        "function_verification_facts_v2",
        "function_repair_vectors_v2",
        "function_repair_semantic_vectors_v2",
        "function_accounting_identity_v3",
    )


def downgrade() -> None:
    """Put back the functions of before and drop the column: only contents are verified then."""
    replace_as_definer(
        "function_accounting_identity_v2",
        "function_repair_semantic_vectors_v1",
        "function_repair_vectors_v1",
        "function_verification_facts_v1",
        "function_forget_others_v1",
        "function_forget_episodes_v1",
        "function_delete_episode_v1",
        "function_record_edit_v1",
        "function_trigger_record_acceptance_v1",
    )
    op.execute("DROP FUNCTION memory_system.claims_of_ledger(bigint, integer)")
    op.execute("DROP FUNCTION memory_system.claims_of_episodes(bigint, integer)")
    op.execute("DROP FUNCTION memory_system.attributes_are_noted(uuid)")
    op.execute("DROP FUNCTION memory_system.note_attributes(uuid)")
    op.execute(f"DROP FUNCTION nexus_memory.chunks_are_intact(uuid, text, integer, {_COPY})")
    op.execute(f"DROP FUNCTION nexus_memory.semantic_vector_is_intact(uuid, text, {_COPY})")
    op.execute(f"DROP FUNCTION nexus_memory.attributes_sha256({_ATTRIBUTES})")
    op.execute("ALTER TABLE memory_system.ledger DROP COLUMN attributes_sha256")
