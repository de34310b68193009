-- Enqueues episodes and semantic memories that the triggers missed (loaded with triggers off, restored from a dump): no vector of the present input
-- under the active model, and no queue row that will make one. Returns how many. The lock order is that of every other writer: by id.
-- Unfinished work of models that are no longer in use goes: nobody will do it, and a way back enqueues it anew.
CREATE FUNCTION memory_system.enqueue_missing(most integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    enqueued bigint;
    semantic bigint;
BEGIN
    DELETE FROM memory_system.embeddings_queue q
    WHERE q.state <> 'done'
      AND NOT EXISTS (SELECT 1 FROM memory_system.embedding_models m WHERE m.model_id = q.model_id AND (m.is_active OR m.is_target));
    INSERT INTO memory_system.embeddings_queue AS q
        (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, priority)
    SELECT 'episodic', e.episode_id, m.model_id, e.agent_id, e.input_sha256, char_length(e.content),
           memory_system.lane(e.importance_score)
    FROM nexus_memory.zep_episodic_memory e
    CROSS JOIN memory_system.embedding_models m
    LEFT JOIN memory_system.embeddings_queue existing
        ON existing.target_kind = 'episodic' AND existing.target_id = e.episode_id AND existing.model_id = m.model_id
    WHERE m.is_active
      AND (e.embedding_sha256 IS DISTINCT FROM e.input_sha256
           OR NOT EXISTS (SELECT 1 FROM nexus_memory.episode_chunks c
                          WHERE c.episode_id = e.episode_id AND c.model_id = m.model_id AND c.input_sha256 = e.input_sha256))
      AND (existing.target_id IS NULL OR existing.state = 'done' OR existing.input_sha256 <> e.input_sha256)
    ORDER BY e.episode_id LIMIT most
    -- include part_requeue_v1
        WHERE q.state = 'done' OR q.input_sha256 <> excluded.input_sha256;
    GET DIAGNOSTICS enqueued = ROW_COUNT;
    INSERT INTO memory_system.embeddings_queue AS q
        (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, priority)
    SELECT 'semantic', s.memory_id, m.model_id, s.agent_id, s.input_sha256, char_length(s.definition),
           memory_system.lane(s.confidence_score)
    FROM nexus_memory.semantic_memories s
    CROSS JOIN memory_system.embedding_models m
    LEFT JOIN memory_system.embeddings_queue existing
        ON existing.target_kind = 'semantic' AND existing.target_id = s.memory_id AND existing.model_id = m.model_id
    WHERE m.is_active
      AND NOT EXISTS (SELECT 1 FROM nexus_memory.semantic_vectors v
                      WHERE v.memory_id = s.memory_id AND v.model_id = m.model_id AND v.input_sha256 = s.input_sha256)
      AND (existing.target_id IS NULL OR existing.state = 'done' OR existing.input_sha256 <> s.input_sha256)
    ORDER BY s.memory_id LIMIT most
    -- include part_requeue_v1
        WHERE q.state = 'done' OR q.input_sha256 <> excluded.input_sha256;
    GET DIAGNOSTICS semantic = ROW_COUNT;
    RETURN enqueued + semantic;
END $$;
