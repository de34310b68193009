-- Rows of the queue by state, and the age of the oldest pending one, over all agents or one. Zero, not absent, when there is none.
-- Rows of models that are no longer in use do not count: nobody can find or replay them.
CREATE FUNCTION memory_system.queue_counts(only_agent_id text DEFAULT NULL)
RETURNS TABLE (pending bigint, processing bigint, done bigint, dead bigint, oldest_pending_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) FILTER (WHERE q.state = 'pending'), count(*) FILTER (WHERE q.state = 'processing'),
           count(*) FILTER (WHERE q.state = 'done'), count(*) FILTER (WHERE q.state = 'dead'),
           coalesce(extract(epoch FROM now() - min(q.enqueued_at) FILTER (WHERE q.state = 'pending')), 0)::double precision
    FROM memory_system.embeddings_queue q
    WHERE (only_agent_id IS NULL OR q.agent_id = only_agent_id)
      AND q.model_id IN (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active OR m.is_target)
$$;
