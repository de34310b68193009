-- The sign of each component of a vector, a bit each, and an index that holds nothing else of a chunk: which of an agent's vectors may be
-- near is found by reading this index alone, a thirtieth of what their vectors take.
ALTER TABLE nexus_memory.episode_chunks
    ADD COLUMN signs bit varying NOT NULL GENERATED ALWAYS AS (public.binary_quantize(embedding)) STORED;
CREATE INDEX ix_episode_chunks_signs ON nexus_memory.episode_chunks (agent_id, model_id) INCLUDE (signs, episode_id, chunk_no);
