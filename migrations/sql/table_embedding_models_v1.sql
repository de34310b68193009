-- The models that vectors come from. `version` names model and pooling together; `fingerprint` is the sha256 of the weights.
CREATE TABLE memory_system.embedding_models (
    model_id smallint NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    dimensions integer NOT NULL,
    fingerprint text NOT NULL,
    is_active boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_embedding_models PRIMARY KEY (model_id),
    CONSTRAINT uq_embedding_models_version UNIQUE (version),
    CONSTRAINT ck_embedding_models_dimensions CHECK (dimensions BETWEEN 1 AND 2000)
);
CREATE UNIQUE INDEX uq_embedding_models_is_active ON memory_system.embedding_models (is_active) WHERE is_active;
INSERT INTO memory_system.embedding_models (model_id, name, version, dimensions, fingerprint, is_active)
VALUES (1, 'all-MiniLM-L6-v2', 'miniLM-384-chunked@v3', 384,
        '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db', true);
