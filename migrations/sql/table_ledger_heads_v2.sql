-- A head is signed over the root of its range and over the root of the tree of all ranges up to it; the key that signed it stands beside,
-- for whoever verifies to compare with the one they were given. `sealed_at` is part of what is signed.
ALTER TABLE memory_system.ledger_heads ADD COLUMN tree_root bytea NOT NULL, ADD COLUMN public_key bytea NOT NULL;
