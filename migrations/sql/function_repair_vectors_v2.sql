-- Gives the episodes named a vector of their present input: chunks of another input, or all where they are not as they were computed, are
-- deleted under the active model, and the work starts anew. What is pending, in process or dead stays so. Returns how many were enqueued.
CREATE FUNCTION memory_system.repair_vectors(ids uuid[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    enqueued bigint;
BEGIN
    -- The row first, as every writer does: a worker that finishes meanwhile skips it.
    PERFORM 1 FROM nexus_memory.zep_episodic_memory e WHERE e.episode_id = ANY (ids) ORDER BY e.episode_id FOR NO KEY UPDATE;
    DELETE FROM nexus_memory.episode_chunks c
    USING nexus_memory.zep_episodic_memory e, memory_system.embedding_models m
    WHERE e.episode_id = ANY (ids) AND c.episode_id = e.episode_id AND m.is_active AND c.model_id = m.model_id
      AND (c.input_sha256 <> e.input_sha256 OR NOT nexus_memory.chunks_are_intact(e.episode_id, e.agent_id,
          char_length(e.content), e.input_sha256, e.embedding, e.embedding_version, m));
    INSERT INTO memory_system.embeddings_queue AS q
        (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, priority)
    SELECT 'episodic', e.episode_id, m.model_id, e.agent_id, e.input_sha256, char_length(e.content),
           memory_system.lane(e.importance_score)
    FROM nexus_memory.zep_episodic_memory e CROSS JOIN memory_system.embedding_models m
    WHERE e.episode_id = ANY (ids) AND m.is_active
    ORDER BY e.episode_id
    -- include part_requeue_v2
        WHERE q.state = 'done' OR q.input_sha256 <> excluded.input_sha256;
    GET DIAGNOSTICS enqueued = ROW_COUNT;
    RETURN enqueued;
END $$;
