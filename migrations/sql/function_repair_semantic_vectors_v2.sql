-- Gives the semantic memories named a vector of their present words, as repair_vectors does for episodes. Returns how many were enqueued.
CREATE FUNCTION memory_system.repair_semantic_vectors(ids uuid[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    enqueued bigint;
BEGIN
    -- The row first, as every writer does: a worker that finishes meanwhile skips it.
    PERFORM 1 FROM nexus_memory.semantic_memories s WHERE s.memory_id = ANY (ids) ORDER BY s.memory_id FOR NO KEY UPDATE;
    DELETE FROM nexus_memory.semantic_vectors v
    USING nexus_memory.semantic_memories s, memory_system.embedding_models m
    WHERE s.memory_id = ANY (ids) AND v.memory_id = s.memory_id AND m.is_active AND v.model_id = m.model_id
      AND (v.input_sha256 <> s.input_sha256 OR NOT nexus_memory.semantic_vector_is_intact(s.memory_id, s.agent_id,
          s.input_sha256, s.embedding, s.embedding_version, m));
    INSERT INTO memory_system.embeddings_queue AS q
        (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, priority)
    SELECT 'semantic', s.memory_id, m.model_id, s.agent_id, s.input_sha256, char_length(s.definition),
           memory_system.lane(s.confidence_score)
    FROM nexus_memory.semantic_memories s CROSS JOIN memory_system.embedding_models m
    WHERE s.memory_id = ANY (ids) AND m.is_active
    ORDER BY s.memory_id
    -- include part_requeue_v2
        WHERE q.state = 'done' OR q.input_sha256 <> excluded.input_sha256;
    GET DIAGNOSTICS enqueued = ROW_COUNT;
    RETURN enqueued;
END $$;
