-- Of the ids given, those that the ledger or the table knows: 'own' and stored, 'deleted' here, or 'taken' by another agent, in which
-- case nothing more is said. An import asks before it inserts, since row security hides what stands in its way.
CREATE FUNCTION memory_system.known_episodes(ids uuid[])
RETURNS TABLE (episode_id uuid, standing text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    agent text := memory_system.current_agent();
BEGIN
    RETURN QUERY
    SELECT i.id, CASE WHEN e.agent_id = agent THEN 'own'
                      WHEN e.agent_id IS NOT NULL OR l.agent_id IS DISTINCT FROM agent THEN 'taken'
                      ELSE 'deleted' END
    FROM unnest(ids) i (id)
    LEFT JOIN nexus_memory.zep_episodic_memory e ON e.episode_id = i.id
    LEFT JOIN LATERAL (SELECT l.agent_id FROM memory_system.ledger l WHERE l.episode_id = i.id LIMIT 1) l ON true
    WHERE e.episode_id IS NOT NULL OR l.agent_id IS NOT NULL;
END $$;
