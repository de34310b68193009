-- AFTER UPDATE, row-level, only when content or actor changed: the work starts anew, whatever state it was in.
-- The token goes, so a worker that still encodes the old text cannot finish.
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
    ON CONFLICT (target_kind, target_id, model_id) DO UPDATE
        SET generation = q.generation + 1, input_sha256 = excluded.input_sha256, input_chars = excluded.input_chars,
            state = 'pending', priority = excluded.priority, due_at = now(), claim_token = NULL, started_at = NULL,
            lease_until = NULL, retry_count = 0, solo = false, last_error = NULL, traceparent = excluded.traceparent,
            enqueued_at = now(), processed_at = NULL;
    DELETE FROM nexus_memory.episode_chunks c WHERE c.episode_id = NEW.episode_id;
    RETURN NULL;
END $$;
