-- Working memory. cache_sha1 is the hash of the exact bytes in Redis; sha1 because that is what Redis can compute itself.
CREATE TABLE nexus_memory.working_memory_contexts (
    agent_id text NOT NULL,
    context_id text NOT NULL,
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    session_id text,
    context_type text NOT NULL DEFAULT 'general',
    active_content jsonb NOT NULL,
    priority text NOT NULL DEFAULT 'normal',
    ttl_seconds integer,
    expires_at timestamptz,
    cache_sha1 bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_working_memory_contexts PRIMARY KEY (agent_id, context_id),
    CONSTRAINT uq_working_memory_contexts_seq UNIQUE (seq),
    CONSTRAINT ck_working_memory_contexts_agent_id CHECK (agent_id ~ '^[A-Za-z0-9._@-]{1,128}$'),
    CONSTRAINT ck_working_memory_contexts_context_id CHECK (context_id ~ '^[^:\s]+$' AND char_length(context_id) <= 256),
    CONSTRAINT ck_working_memory_contexts_priority CHECK (priority IN ('critical', 'high', 'normal', 'low')),
    CONSTRAINT ck_working_memory_contexts_ttl CHECK (ttl_seconds > 0)
);
CREATE INDEX ix_working_memory_contexts_expires_at ON nexus_memory.working_memory_contexts (expires_at) WHERE expires_at IS NOT NULL;
