-- The cosine between a query vector and each named episode of the current agent, by its best chunk. Episodes without a present
-- vector are absent. No order.
CREATE FUNCTION nexus_memory.cosine_of(episode_ids uuid[], query public.vector, model smallint)
RETURNS TABLE (episode_id uuid, cosine double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    agent text := memory_system.current_agent();
BEGIN
    RETURN QUERY
    SELECT c.episode_id, 1 - min(c.embedding <=> query)
    FROM nexus_memory.episode_chunks c JOIN nexus_memory.zep_episodic_memory e ON e.episode_id = c.episode_id
    WHERE c.episode_id = ANY (episode_ids) AND c.agent_id = agent AND e.agent_id = agent AND c.model_id = model
      AND c.input_sha256 = e.input_sha256
    GROUP BY c.episode_id;
END $$;
