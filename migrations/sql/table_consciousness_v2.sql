-- The blocks as they were at a checkpoint, label to value: what the identity hash is over, and what a restore compares and writes back.
ALTER TABLE consciousness.consciousness_checkpoints ADD COLUMN blocks jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT ck_consciousness_checkpoints_blocks CHECK (jsonb_typeof(blocks) = 'object');
