-- The dead rows of all agents by cause (their last error), the most frequent first, with up to five examples, the latest first.
CREATE FUNCTION memory_system.dead_causes(most integer DEFAULT 100)
RETURNS TABLE (cause text, rows bigint, agents bigint, first_dead_at timestamptz, last_dead_at timestamptz, examples uuid[])
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(q.last_error, 'unknown'), count(*), count(DISTINCT q.agent_id), min(q.processed_at), max(q.processed_at),
           (array_agg(q.target_id ORDER BY q.processed_at DESC, q.target_id))[1:5]
    FROM memory_system.embeddings_queue q WHERE q.state = 'dead'
      AND q.model_id IN (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active OR m.is_target)
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT most
$$;
