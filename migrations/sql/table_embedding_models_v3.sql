-- When a model was made the active one for the first time: its vectors are kept for a way back, also when that is given up half-way.
ALTER TABLE memory_system.embedding_models ADD COLUMN activated_at timestamptz;
UPDATE memory_system.embedding_models SET activated_at = created_at WHERE NOT is_target;
