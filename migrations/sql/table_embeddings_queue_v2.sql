-- `claimed_at` orders the rows in flight by the time of their claim, so that the count of them can skip the dead entries that a
-- held snapshot keeps in the index. clock_timestamp(), under the lock of the window, makes it grow from claim to claim.
-- The dead are read and replayed by cause. The copy of a vector within an agent is found by the hash of its input.
ALTER TABLE memory_system.embeddings_queue ADD COLUMN claimed_at timestamptz;
DROP INDEX memory_system.ix_embeddings_queue_processing;
CREATE INDEX ix_embeddings_queue_processing ON memory_system.embeddings_queue (claimed_at) WHERE state = 'processing';
DROP INDEX memory_system.ix_embeddings_queue_dead;
CREATE INDEX ix_embeddings_queue_dead ON memory_system.embeddings_queue (last_error, target_id) WHERE state = 'dead';
DROP INDEX nexus_memory.ix_episode_chunks_agent_id_model_id;
CREATE INDEX ix_episode_chunks_input ON nexus_memory.episode_chunks (agent_id, model_id, input_sha256);
