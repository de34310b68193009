-- Dead rows of all agents, of one cause or of any, in order of target_id after a given one. No content.
CREATE FUNCTION memory_system.dead_rows(only_cause text, after_id uuid, most integer)
RETURNS TABLE (target_kind text, target_id uuid, model_id smallint, agent_id text, input_chars integer, attempts smallint, cause text,
               enqueued_at timestamptz, dead_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT q.target_kind, q.target_id, q.model_id, q.agent_id, q.input_chars, q.retry_count, coalesce(q.last_error, 'unknown'),
           q.enqueued_at, q.processed_at
    FROM memory_system.embeddings_queue q
    WHERE q.state = 'dead' AND q.model_id IN (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active OR m.is_target)
      AND (only_cause IS NULL OR coalesce(q.last_error, 'unknown') = only_cause)
      AND (after_id IS NULL OR q.target_id > after_id)
    ORDER BY q.target_id, q.model_id LIMIT most
$$;
