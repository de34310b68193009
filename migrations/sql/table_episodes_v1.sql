-- Episodes. fillfactor leaves room for the second version of a row, which its embedding writes.
CREATE TABLE nexus_memory.zep_episodic_memory (
    episode_id uuid NOT NULL DEFAULT gen_random_uuid(),
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    agent_id text NOT NULL,
    session_id text,
    actor text,
    action_type text NOT NULL DEFAULT 'note',
    content text NOT NULL,
    version integer NOT NULL DEFAULT 1,
    content_sha256 bytea NOT NULL GENERATED ALWAYS AS (nexus_memory.content_sha256(content)) STORED,
    receipt_nonce uuid NOT NULL DEFAULT gen_random_uuid(),
    "timestamp" timestamptz NOT NULL DEFAULT now(),
    importance_score double precision NOT NULL DEFAULT 0.5,
    tags text[] NOT NULL DEFAULT '{}',
    metadata jsonb NOT NULL DEFAULT '{}',
    action_details jsonb,
    context_state jsonb,
    project_id uuid,
    language text NOT NULL DEFAULT 'en',
    idempotency_key text,
    request_sha256 bytea,
    input_sha256 bytea NOT NULL GENERATED ALWAYS AS (nexus_memory.encoder_input_sha256(actor, content)) STORED,
    embedding public.vector(384),
    embedding_version text,
    embedding_sha256 bytea,
    search_vector tsvector NOT NULL GENERATED ALWAYS AS (nexus_memory.episode_search_vector(language, actor, content)) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_zep_episodic_memory PRIMARY KEY (episode_id),
    CONSTRAINT uq_zep_episodic_memory_seq UNIQUE (seq),
    CONSTRAINT uq_zep_episodic_memory_agent_id_idempotency_key UNIQUE (agent_id, idempotency_key),
    CONSTRAINT fk_zep_episodic_memory_project FOREIGN KEY (agent_id, project_id)
        REFERENCES nexus_memory.projects (agent_id, project_id) ON DELETE SET NULL (project_id),
    CONSTRAINT ck_zep_episodic_memory_agent_id CHECK (agent_id ~ '^[A-Za-z0-9._@-]{1,128}$'),
    CONSTRAINT ck_zep_episodic_memory_content CHECK (content ~ '\S' AND char_length(content) <= 200000),
    CONSTRAINT ck_zep_episodic_memory_actor CHECK (actor ~ '\S' AND char_length(actor) <= 128),
    CONSTRAINT ck_zep_episodic_memory_session_id CHECK (session_id ~ '\S' AND char_length(session_id) <= 256),
    CONSTRAINT ck_zep_episodic_memory_action_type CHECK (action_type ~ '\S' AND char_length(action_type) <= 256),
    CONSTRAINT ck_zep_episodic_memory_importance CHECK (importance_score BETWEEN 0 AND 1),
    -- The years that ISO 8601 and every client can write; infinity is no moment.
    CONSTRAINT ck_zep_episodic_memory_timestamp CHECK ("timestamp" >= '0001-01-01 00:00:00+00' AND "timestamp" < '10000-01-01 00:00:00+00'),
    CONSTRAINT ck_zep_episodic_memory_metadata CHECK (jsonb_typeof(metadata) = 'object'),
    -- As deep as the API takes it: a JSON reader's own limit must not make a stored row unreadable.
    CONSTRAINT ck_zep_episodic_memory_nesting CHECK (NOT jsonb_path_exists(metadata, '$.**{65}')
        AND NOT coalesce(jsonb_path_exists(action_details, '$.**{65}'), false)
        AND NOT coalesce(jsonb_path_exists(context_state, '$.**{65}'), false)),
    CONSTRAINT ck_zep_episodic_memory_idempotency CHECK ((idempotency_key IS NULL) OR (char_length(idempotency_key) BETWEEN 1 AND 256)),
    CONSTRAINT ck_zep_episodic_memory_version CHECK (version >= 1)
) WITH (fillfactor = 75);
CREATE INDEX ix_zep_episodic_memory_agent_id_timestamp ON nexus_memory.zep_episodic_memory (agent_id, "timestamp" DESC, seq DESC);
CREATE INDEX ix_zep_episodic_memory_agent_id_seq ON nexus_memory.zep_episodic_memory (agent_id, seq);
CREATE INDEX ix_zep_episodic_memory_agent_id_project_id ON nexus_memory.zep_episodic_memory (agent_id, project_id)
    WHERE project_id IS NOT NULL;
CREATE INDEX ix_zep_episodic_memory_search_vector ON nexus_memory.zep_episodic_memory USING gin (search_vector);
CREATE INDEX ix_zep_episodic_memory_tags ON nexus_memory.zep_episodic_memory USING gin (tags);
CREATE INDEX ix_zep_episodic_memory_metadata ON nexus_memory.zep_episodic_memory USING gin (metadata jsonb_path_ops);
