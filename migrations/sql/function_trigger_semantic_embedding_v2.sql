-- AFTER INSERT or UPDATE of a semantic memory, row-level (they are few): the same idempotent upsert as for episodes, under each model in use.
CREATE FUNCTION nexus_memory.trigger_semantic_embedding() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO memory_system.embeddings_queue AS q
        (target_kind, target_id, model_id, agent_id, input_sha256, input_chars, priority, traceparent)
    SELECT 'semantic', NEW.memory_id, m.model_id, NEW.agent_id, NEW.input_sha256, char_length(NEW.definition),
           memory_system.lane(NEW.confidence_score), nullif(current_setting('app.traceparent', true), '')
    FROM memory_system.embedding_models m
    WHERE m.is_active OR m.is_target
    ON CONFLICT (target_kind, target_id, model_id) DO UPDATE
        SET generation = q.generation + 1, input_sha256 = excluded.input_sha256, input_chars = excluded.input_chars,
            state = 'pending', priority = excluded.priority, due_at = now(), claim_token = NULL, started_at = NULL,
            lease_until = NULL, retry_count = 0, solo = false, last_error = NULL, traceparent = excluded.traceparent,
            enqueued_at = now(), processed_at = NULL;
    RETURN NULL;
END $$;
