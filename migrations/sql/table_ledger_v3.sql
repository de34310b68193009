-- What else an episode holds beside its content, hashed; null for what was accepted before this column was there. It is no part of the
-- leaf, so a legal change of tags or metadata makes no new version and no new receipt.
ALTER TABLE memory_system.ledger ADD COLUMN attributes_sha256 bytea;
