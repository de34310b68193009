-- AFTER UPDATE, row-level, only when content or actor changed: the work starts anew, whatever state it was in.
CREATE FUNCTION nexus_memory.trigger_generate_embedding_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO memory_system.embeddings_queue AS q
        (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, priority, traceparent)
    SELECT 'episodic', NEW.episode_id, m.model_id, NEW.agent_id, NEW.input_sha256, char_length(NEW.content),
           memory_system.lane(NEW.importance_score), nullif(current_setting('app.traceparent', true), '')
    FROM memory_system.embedding_models m
    WHERE m.is_active OR m.is_target
    -- include part_requeue_v1;
    DELETE FROM nexus_memory.episode_chunks c WHERE c.episode_id = NEW.episode_id;
    RETURN NULL;
END $$;
