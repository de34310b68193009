-- What is stored, over all agents or one.
CREATE FUNCTION memory_system.totals(only_agent_id text DEFAULT NULL)
RETURNS TABLE (episodes bigint, embedded bigint, chunks bigint, agents bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*), count(*) FILTER (WHERE e.embedding_sha256 = e.input_sha256),
           (SELECT count(*) FROM nexus_memory.episode_chunks c WHERE only_agent_id IS NULL OR c.agent_id = only_agent_id),
           count(DISTINCT e.agent_id)
    FROM nexus_memory.zep_episodic_memory e
    WHERE only_agent_id IS NULL OR e.agent_id = only_agent_id
$$;
