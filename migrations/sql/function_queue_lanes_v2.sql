-- Unfinished work of all agents by priority lane, most urgent first; `waiting` are pending rows that are due later, and `due_chars`
-- is how long all others are together, those in process included, a row counted as 64 characters at least. Lanes without work are absent, and so is work
-- of models that are no longer in use.
CREATE FUNCTION memory_system.queue_lanes()
RETURNS TABLE (lane smallint, pending bigint, waiting bigint, due_chars bigint, processing bigint, oldest_pending_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT q.priority, count(*) FILTER (WHERE q.state = 'pending'), count(*) FILTER (WHERE q.state = 'pending' AND q.due_at > now()),
           coalesce(sum(greatest(q.input_chars, 64)) FILTER (WHERE q.state = 'processing' OR q.due_at <= now()), 0)::bigint,
           count(*) FILTER (WHERE q.state = 'processing'),
           coalesce(extract(epoch FROM now() - min(q.enqueued_at) FILTER (WHERE q.state = 'pending')), 0)::double precision
    FROM memory_system.embeddings_queue q
    WHERE q.state IN ('pending', 'processing')
      AND q.model_id IN (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active OR m.is_target)
    GROUP BY q.priority ORDER BY q.priority
$$;
