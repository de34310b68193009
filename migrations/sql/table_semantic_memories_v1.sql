CREATE TABLE nexus_memory.semantic_memories (
    memory_id uuid NOT NULL DEFAULT gen_random_uuid(),
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    agent_id text NOT NULL,
    concept text NOT NULL,
    definition text NOT NULL,
    relationships jsonb NOT NULL DEFAULT '{}',
    confidence_score double precision NOT NULL DEFAULT 0.5,
    source_episodes uuid[] NOT NULL DEFAULT '{}',
    language text NOT NULL DEFAULT 'en',
    version integer NOT NULL DEFAULT 1,
    input_sha256 bytea NOT NULL GENERATED ALWAYS AS (nexus_memory.encoder_input_sha256(concept, definition)) STORED,
    embedding public.vector(384),
    embedding_version text,
    embedding_sha256 bytea,
    search_vector tsvector NOT NULL GENERATED ALWAYS AS (nexus_memory.episode_search_vector(language, concept, definition)) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_semantic_memories PRIMARY KEY (memory_id),
    CONSTRAINT uq_semantic_memories_seq UNIQUE (seq),
    CONSTRAINT ck_semantic_memories_agent_id CHECK (agent_id ~ '^[A-Za-z0-9._@-]{1,128}$'),
    CONSTRAINT ck_semantic_memories_concept CHECK (concept ~ '\S' AND char_length(concept) <= 256),
    CONSTRAINT ck_semantic_memories_definition CHECK (definition ~ '\S' AND char_length(definition) <= 200000),
    CONSTRAINT ck_semantic_memories_confidence CHECK (confidence_score BETWEEN 0 AND 1),
    CONSTRAINT ck_semantic_memories_relationships CHECK (jsonb_typeof(relationships) = 'object')
);
CREATE INDEX ix_semantic_memories_agent_id_seq ON nexus_memory.semantic_memories (agent_id, seq);
CREATE INDEX ix_semantic_memories_search_vector ON nexus_memory.semantic_memories USING gin (search_vector);
CREATE INDEX ix_semantic_memories_embedding ON nexus_memory.semantic_memories
    USING hnsw (embedding public.vector_cosine_ops) WITH (m = 16, ef_construction = 64);
