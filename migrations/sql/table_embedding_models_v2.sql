-- `source` is where a process finds the model's files: a folder or the name of a cached model; empty for the shipped one.
-- At most one model is the target of a migration: new episodes are embedded under it as well as under the active one.
ALTER TABLE memory_system.embedding_models ADD COLUMN source text NOT NULL DEFAULT '';
ALTER TABLE memory_system.embedding_models ADD COLUMN is_target boolean NOT NULL DEFAULT false;
ALTER TABLE memory_system.embedding_models ADD CONSTRAINT ck_embedding_models_target CHECK (NOT (is_active AND is_target));
CREATE UNIQUE INDEX uq_embedding_models_is_target ON memory_system.embedding_models (is_target) WHERE is_target;
