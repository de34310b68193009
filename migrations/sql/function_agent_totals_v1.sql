-- Episodes by agent, in order of agent_id.
CREATE FUNCTION memory_system.agent_totals(most integer DEFAULT 1000)
RETURNS TABLE (agent_id text, episodes bigint, embedded bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.agent_id, count(*), count(*) FILTER (WHERE e.embedding_sha256 = e.input_sha256)
    FROM nexus_memory.zep_episodic_memory e
    GROUP BY e.agent_id ORDER BY e.agent_id LIMIT most
$$;
