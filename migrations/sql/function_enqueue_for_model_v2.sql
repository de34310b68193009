-- Enqueues one agent's episodes and semantic memories, in the low lane, for which a model has no work of their present input, done or
-- to be done. Returns how many; zero when nothing of the agent is missing. Work whose outcome an edit removed, while the model was
-- not in use, is renewed.
CREATE FUNCTION memory_system.enqueue_for_model(for_agent text, for_model smallint, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    enqueued bigint;
    semantic bigint;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM memory_system.embedding_models m WHERE m.model_id = for_model AND (m.is_active OR m.is_target)) THEN
        RAISE EXCEPTION 'the model is not in use' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    INSERT INTO memory_system.embeddings_queue AS q
        (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, priority)
    SELECT 'episodic', e.episode_id, for_model, e.agent_id, e.input_sha256, char_length(e.content), 3
    FROM nexus_memory.zep_episodic_memory e
    WHERE e.agent_id = for_agent
      AND NOT EXISTS (SELECT 1 FROM memory_system.embeddings_queue known
                      WHERE known.target_kind = 'episodic' AND known.target_id = e.episode_id AND known.model_id = for_model
                        AND known.input_sha256 = e.input_sha256
                        AND (known.state <> 'done' OR EXISTS (
                            SELECT 1 FROM nexus_memory.episode_chunks c
                            WHERE c.episode_id = e.episode_id AND c.model_id = for_model AND c.input_sha256 = e.input_sha256)))
    ORDER BY e.episode_id LIMIT most
    -- include part_requeue_v1
        WHERE q.input_sha256 <> excluded.input_sha256 OR q.state = 'done';
    GET DIAGNOSTICS enqueued = ROW_COUNT;
    INSERT INTO memory_system.embeddings_queue AS q
        (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, priority)
    SELECT 'semantic', s.memory_id, for_model, s.agent_id, s.input_sha256, char_length(s.definition), 3
    FROM nexus_memory.semantic_memories s
    WHERE s.agent_id = for_agent
      AND NOT EXISTS (SELECT 1 FROM memory_system.embeddings_queue known
                      WHERE known.target_kind = 'semantic' AND known.target_id = s.memory_id AND known.model_id = for_model
                        AND known.input_sha256 = s.input_sha256
                        AND (known.state <> 'done' OR EXISTS (
                            SELECT 1 FROM nexus_memory.semantic_vectors v
                            WHERE v.memory_id = s.memory_id AND v.model_id = for_model AND v.input_sha256 = s.input_sha256)))
    ORDER BY s.memory_id LIMIT most
    -- include part_requeue_v1
        WHERE q.input_sha256 <> excluded.input_sha256 OR q.state = 'done';
    GET DIAGNOSTICS semantic = ROW_COUNT;
    RETURN enqueued + semantic;
END $$;
