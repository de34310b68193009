-- The vectors that search reads: at least one row for each embedded episode. `input_sha256` is the hash of the whole
-- encoder input of the episode, the same in each of its chunks, so that search can tell a stale vector by one comparison.
-- The distance is over an expression because one column holds the vectors of models with other dimensions.
CREATE TABLE nexus_memory.episode_chunks (
    episode_id uuid NOT NULL,
    model_id smallint NOT NULL,
    chunk_no integer NOT NULL,
    agent_id text NOT NULL,
    char_start integer NOT NULL,
    char_end integer NOT NULL,
    input_sha256 bytea NOT NULL,
    embedding public.vector NOT NULL,
    vector_sha256 bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_episode_chunks PRIMARY KEY (episode_id, model_id, chunk_no),
    CONSTRAINT fk_episode_chunks_episode FOREIGN KEY (episode_id)
        REFERENCES nexus_memory.zep_episodic_memory (episode_id) ON DELETE CASCADE,
    CONSTRAINT fk_episode_chunks_model FOREIGN KEY (model_id) REFERENCES memory_system.embedding_models (model_id),
    CONSTRAINT ck_episode_chunks_span CHECK (char_start >= 0 AND char_end > char_start)
);
CREATE INDEX ix_episode_chunks_agent_id_model_id ON nexus_memory.episode_chunks (agent_id, model_id);
CREATE INDEX ix_episode_chunks_embedding_model_1 ON nexus_memory.episode_chunks
    USING hnsw ((embedding::public.vector(384)) public.vector_cosine_ops) WITH (m = 16, ef_construction = 64) WHERE model_id = 1;
