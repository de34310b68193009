-- The queue: one row per target and model. Done rows stay; every search for work runs over a partial index, so they cost nothing.
-- The index over processing rows leaves lease_until out, so that a heartbeat is a HOT update.
CREATE TABLE memory_system.embeddings_queue (
    target_kind text NOT NULL,
    target_id uuid NOT NULL,
    model_id smallint NOT NULL,
    agent_id text NOT NULL,
    generation bigint NOT NULL DEFAULT 1,
    input_sha256 bytea NOT NULL,
    input_chars integer NOT NULL,
    state text NOT NULL DEFAULT 'pending',
    priority smallint NOT NULL DEFAULT 2,
    due_at timestamptz NOT NULL DEFAULT now(),
    claim_token uuid,
    started_at timestamptz,
    lease_until timestamptz,
    retry_count smallint NOT NULL DEFAULT 0,
    solo boolean NOT NULL DEFAULT false,
    last_error text,
    traceparent text,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    processed_at timestamptz,
    CONSTRAINT pk_embeddings_queue PRIMARY KEY (target_kind, target_id, model_id),
    CONSTRAINT fk_embeddings_queue_model FOREIGN KEY (model_id) REFERENCES memory_system.embedding_models (model_id),
    CONSTRAINT ck_embeddings_queue_target_kind CHECK (target_kind IN ('episodic', 'semantic')),
    CONSTRAINT ck_embeddings_queue_state CHECK (state IN ('pending', 'processing', 'done', 'dead')),
    CONSTRAINT ck_embeddings_queue_priority CHECK (priority BETWEEN 0 AND 3),
    CONSTRAINT ck_embeddings_queue_claim CHECK ((state = 'processing') = (claim_token IS NOT NULL)),
    CONSTRAINT ck_embeddings_queue_last_error CHECK (char_length(last_error) <= 500)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX ix_embeddings_queue_ready ON memory_system.embeddings_queue (priority, due_at, target_id) WHERE state = 'pending';
CREATE INDEX ix_embeddings_queue_processing ON memory_system.embeddings_queue (target_id) WHERE state = 'processing';
CREATE INDEX ix_embeddings_queue_dead ON memory_system.embeddings_queue (target_id) WHERE state = 'dead';
CREATE INDEX ix_embeddings_queue_open ON memory_system.embeddings_queue (agent_id) WHERE state IN ('pending', 'processing');
CREATE INDEX ix_embeddings_queue_oldest ON memory_system.embeddings_queue (enqueued_at) WHERE state = 'pending';
