-- The vectors of semantic memories that search reads, one a model, so that another model's can be made while the present ones serve.
-- `input_sha256` is the hash of what was encoded: a row whose memory has other words by now is not served.
CREATE TABLE nexus_memory.semantic_vectors (
    memory_id uuid NOT NULL,
    model_id smallint NOT NULL,
    agent_id text NOT NULL,
    input_sha256 bytea NOT NULL,
    embedding public.vector NOT NULL,
    vector_sha256 bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_semantic_vectors PRIMARY KEY (memory_id, model_id),
    CONSTRAINT fk_semantic_vectors_memory FOREIGN KEY (memory_id)
        REFERENCES nexus_memory.semantic_memories (memory_id) ON DELETE CASCADE,
    CONSTRAINT fk_semantic_vectors_model FOREIGN KEY (model_id) REFERENCES memory_system.embedding_models (model_id)
);
CREATE INDEX ix_semantic_vectors_agent ON nexus_memory.semantic_vectors (agent_id, model_id);
-- What is on the memories' rows is the active model's. The owner is subject to the policies too, unless they are lifted.
SET LOCAL row_security = off;
ALTER TABLE nexus_memory.semantic_memories NO FORCE ROW LEVEL SECURITY;
INSERT INTO nexus_memory.semantic_vectors (memory_id, model_id, agent_id, input_sha256, embedding, vector_sha256)
SELECT s.memory_id, m.model_id, s.agent_id, s.input_sha256, s.embedding, sha256(public.vector_send(s.embedding))
FROM nexus_memory.semantic_memories s JOIN memory_system.embedding_models m ON m.version = s.embedding_version
WHERE s.embedding IS NOT NULL AND s.embedding_sha256 = s.input_sha256;
ALTER TABLE nexus_memory.semantic_memories FORCE ROW LEVEL SECURITY;
RESET row_security;
DROP INDEX nexus_memory.ix_semantic_memories_embedding;
