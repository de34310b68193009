-- Unfinished work of all agents by priority lane, most urgent first; `waiting` are pending rows that are due later.
-- Lanes without work are absent.
CREATE FUNCTION memory_system.queue_lanes()
RETURNS TABLE (lane smallint, pending bigint, waiting bigint, processing bigint, oldest_pending_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT q.priority, count(*) FILTER (WHERE q.state = 'pending'), count(*) FILTER (WHERE q.state = 'pending' AND q.due_at > now()),
           count(*) FILTER (WHERE q.state = 'processing'),
           coalesce(extract(epoch FROM now() - min(q.enqueued_at) FILTER (WHERE q.state = 'pending')), 0)::double precision
    FROM memory_system.embeddings_queue q WHERE q.state IN ('pending', 'processing')
    GROUP BY q.priority ORDER BY q.priority
$$;
